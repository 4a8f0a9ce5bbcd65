"""Bars of throughput, a panel a load: a picture, and a page that needs no other file."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import machine, report
from measuring.figures import rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = "#1f5fbf"
OTHERS = "#9aa3ad"
INK = "#22272e"
FAINT = "#6b7480"
_ROW_INCHES = 0.34
_PANEL_INCHES = 0.75


def draw(results: dict[str, Any], png: Path, page: Path) -> str:
    """Write both. What could not be done; empty when all was."""
    try:
        import matplotlib
    except ImportError:
        page.write_text(as_page(results, ""))
        return "No bars: matplotlib is not installed (pip install 'raftcache[dev]')."
    matplotlib.use("Agg")
    # Text stays text in the page: it can be searched, and needs no font of ours.
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure = bars(results)
    figure.savefig(png, dpi=150)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    svg = drawing.getvalue()
    page.write_text(as_page(results, svg[svg.index("<svg") :]))
    return ""


def bars(results: dict[str, Any]) -> Figure:
    """A panel for each load; a bar for each peer and load generator, the quickest first."""
    from matplotlib.figure import Figure

    loads = list(dict.fromkeys(each["load"] for each in results["figures"]))
    panels = [[each for each in results["figures"] if each["load"] == load] for load in loads]
    inches = [_PANEL_INCHES + _ROW_INCHES * len(panel) for panel in panels]
    figure = Figure(figsize=(9.0, sum(inches) + 1.1), layout="constrained", facecolor="white")
    figure.suptitle(_title(results), x=0.01, ha="left", fontsize=9.5, color=INK)
    figure.get_layout_engine().set(hspace=0.06)
    axes = figure.subplots(max(1, len(panels)), 1, height_ratios=inches or [1], squeeze=False)
    for axis, load, panel in zip(axes.flat, loads, panels, strict=False):
        _panel(axis, load, panel, results["peers"])
    return figure


def _title(results: dict[str, Any]) -> str:
    disturbed = sum((each["other_cpu"] or 0) > report.DISTURBED for each in results["figures"])
    marks = "Lines: lowest to highest. Hatched: not linearizable through failures."
    if disturbed:
        marks += f" {disturbed} of {len(results['figures'])} figures were disturbed by other work."
    same = report.conditions(results).replace("; ", "\n", 1)
    return f"Operations a second: {same}\n{marks}\n"


def _panel(axis: Any, load: str, panel: list[dict[str, Any]], peers: dict[str, Any]) -> None:
    medians = [each["ops_per_s"]["median"] for each in panel]
    places = range(len(panel))
    drawn = axis.barh(
        places,
        medians,
        height=0.66,
        color=[OURS if each["peer"].startswith("raftcache") else OTHERS for each in panel],
        xerr=[
            [m - each["ops_per_s"]["lowest"] for m, each in zip(medians, panel, strict=True)],
            [each["ops_per_s"]["highest"] - m for m, each in zip(medians, panel, strict=True)],
        ],
        error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.0},
    )
    for bar, each in zip(drawn, panel, strict=True):
        if not peers[each["peer"]]["linearizable"]:
            bar.set_hatch("////")
            bar.set_edgecolor("white")
            bar.set_linewidth(0)
    top = max((each["ops_per_s"]["highest"] for each in panel), default=1.0)
    for place, each in zip(places, panel, strict=True):
        p99 = "" if each["p99_ms"] is None else f"   p99 {each['p99_ms']:.1f} ms"
        end = each["ops_per_s"]["highest"] + top * 0.015
        said = f"{rate(each['ops_per_s']['median'])}{p99}"
        axis.text(end, place, said, va="center", fontsize=8, color=INK)
    names = [f"{each['peer']} ({each['generator']})" for each in panel]
    axis.set_yticks(places, names, fontsize=8.5, color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, top * 1.25)
    axis.set_title(load, loc="left", fontsize=10, fontweight="bold", color=INK)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.tick_params(axis="x", labelsize=8, colors=FAINT)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e3e6ea", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#c7ccd2")


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22272e; background: #fff;
       max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .3rem; }
.drawing svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e3e6ea; text-align: right;
         white-space: nowrap; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
tr.ours td { background: #eef4fc; }
tr.first td { border-top: 2px solid #9aa3ad; }
ul, p { color: #444c56; }
"""


def as_page(results: dict[str, Any], svg: str) -> str:
    """The drawing, the table and the remarks; nothing is loaded from anywhere."""
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in report.HEADS)
    body = []
    for cells, each in zip(report.rows(results), results["figures"], strict=True):
        kinds = ["ours"] if each["peer"].startswith("raftcache") else []
        kinds += ["first"] if cells[0] else []
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        body.append(f'<tr class="{" ".join(kinds)}">{row}</tr>')
    remarks = "".join(f"<li>{html.escape(each)}</li>" for each in report.remarks(results))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>raftcache and its peers</title>
<style>{_STYLE}</style>
<h1>raftcache and its peers</h1>
<p>{html.escape(report.conditions(results))}.<br>
{html.escape(machine.in_words(results["machine"]))}.</p>
<div class="drawing">{svg}</div>
<div class="scroll"><table><thead><tr>{heads}</tr></thead>
<tbody>
{chr(10).join(body)}
</tbody></table></div>
<ul>{remarks}</ul>
</html>
"""
