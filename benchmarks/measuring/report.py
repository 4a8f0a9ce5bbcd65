"""What ``compare.py`` found, in words, tables, JSON, a picture and a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measuring import chart, machine
from measuring.figures import markdown_table, number, rate, text_table

NAME = "comparison"
HEADS = (
    "load",
    "peer",
    "by",
    "ops/s",
    "lowest, highest",
    "p50 ms",
    "p99 ms",
    "server CPU us/op",
    "other CPU",
    "failed",
)
_LEFT = 3
DISTURBED = 0.1
"""Share of the CPU time taken by others from which a figure is marked."""


def write(results: dict[str, Any], out: Path | None) -> str:
    """Write every report into ``out`` if given; the text."""
    text = as_text(results)
    if out is None:
        return text
    write_json(results, out)
    (out / f"{NAME}.txt").write_text(text + "\n")
    (out / f"{NAME}.md").write_text(as_markdown(results))
    if drawn := chart.draw(results, out / f"{NAME}.png", out / f"{NAME}.html"):
        text += f"\n{drawn}"
    return f"{text}\nReports: {out}/{NAME}.txt, .md, .json, .png, .html"


def write_json(results: dict[str, Any], out: Path) -> None:
    """All of it, for programs and ``--redraw``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{NAME}.json").write_text(json.dumps(results, indent=2) + "\n")


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The table's cells."""
    cells = []
    before = ""
    for each in results["figures"]:
        ops = each["ops_per_s"]
        lost = each["errors"] + each["misses"]
        other = each["other_cpu"]
        cells.append(
            [
                each["load"] if each["load"] != before else "",
                each["peer"] + ("" if results["peers"][each["peer"]]["linearizable"] else " *"),
                each["generator"],
                rate(ops["median"]),
                f"{rate(ops['lowest'])}, {rate(ops['highest'])}",
                number(each["p50_ms"], 2),
                number(each["p99_ms"], 2),
                number(each["server_cpu_us_per_op"], 1),
                "-" if other is None else f"{other:.0%}{'!' if other > DISTURBED else ''}",
                number(lost) if lost else "0",
            ]
        )
        before = each["load"]
    return cells


def conditions(results: dict[str, Any]) -> str:
    """One line: what was the same for all."""
    given = results["conditions"]
    where = {"leader": "the leader (primary)", "follower": "a follower", "all": "all nodes"}
    kept = "on disk before it is acknowledged" if given["durable"] else "in memory"
    return (
        f"{given['nodes']} nodes each, data {kept}; {given['clients']} clients at"
        f" {where[given['through']]},"
        f" {given['keys']:,} keys of 16 bytes, values of {given['value_bytes']:,} bytes;"
        f" {given['repeats']} turns of {given['seconds']:g} s, medians"
    )


def remarks(results: dict[str, Any]) -> list[str]:
    """Sentences that belong to the table."""
    said = ["* is not linearizable through failures, or may lose acknowledged writes."]
    for name, peer in results["peers"].items():
        version = f" {peer['version']}" if peer["version"] else ""
        said.append(f"{name}{version}: {peer['about']}. {' '.join(peer['notes'])}")
    for each in results["figures"]:
        if each["first_error"]:
            said.append(f"{each['peer']}, {each['load']}: first error: {each['first_error']}")
    for name, problem in results["failed"].items():
        said.append(f"{name} failed in a turn: {problem}")
    said.append(
        "Servers and load share the machine. Server CPU is that of all nodes, per operation; other"
        " CPU is the share of all cores that neither servers nor load used, ! when that is more"
        f" than {DISTURBED:.0%} and so disturbs the figure. Latency in a pipeline is the whole's."
    )
    return said


def as_text(results: dict[str, Any]) -> str:
    """For a terminal."""
    table = text_table(HEADS, rows(results), _LEFT)
    lines = [conditions(results), machine.in_words(results["machine"]), "", table, ""]
    return "\n".join(lines + remarks(results))


def as_markdown(results: dict[str, Any]) -> str:
    """For a document."""
    table = markdown_table(HEADS, rows(results), _LEFT)
    lines = [f"{conditions(results)}.", "", table, "", f"{machine.in_words(results['machine'])}."]
    return "\n".join([*lines, "", *[f"- {each}" for each in remarks(results)]]) + "\n"
