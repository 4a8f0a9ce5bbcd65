"""The dashboard at ``/ui``: one page, no outside resources, polling ``/v1/cluster``.

All text from the cluster enters the page through ``textContent``, never as markup.
"""

from __future__ import annotations

from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark;
  --ink: #1c2330; --soft: #69758a; --line: #e3e7ee; --card: #fff; --page: #f5f6f9;
  --accent: #3157d5; --good: #16855b; --warn: #b7791f; --bad: #c93a3a; --track: #e8ecf3; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e7ebf3; --soft: #95a1b6; --line: #2b3342; --card: #1a202b; --page: #11151d;
  --accent: #7d9bff; --good: #3fc28f; --warn: #e0ad52; --bad: #f07171; --track: #2a3241; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
header { display: flex; align-items: baseline; gap: 14px; flex-wrap: wrap; margin-bottom: 20px; }
h1 { font-size: 24px; margin: 0; letter-spacing: -0.02em; }
h2 { font-size: 13px; text-transform: uppercase; letter-spacing: 0.08em; color: var(--soft);
  margin: 30px 0 10px; font-weight: 600; }
.soft { color: var(--soft); }
.pill { border-radius: 99px; padding: 2px 11px; font-size: 13px; font-weight: 600;
  color: var(--card); background: var(--soft); }
.pill.good { background: var(--good); } .pill.bad { background: var(--bad); }
.cards { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 14px 16px; min-width: 0; }
.card .figure { font-size: 25px; font-weight: 650; letter-spacing: -0.02em; }
.card .label { color: var(--soft); font-size: 13px; }
.member { display: flex; gap: 12px; align-items: center; }
.member div { min-width: 0; overflow-wrap: anywhere; }
.dot { flex: none; width: 11px; height: 11px; border-radius: 50%; background: var(--bad); }
.dot.good { background: var(--good); }
.table { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 10px 14px; white-space: nowrap; }
th { font-size: 12.5px; color: var(--soft); font-weight: 600; }
tbody tr { border-top: 1px solid var(--line); }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
td.warn { color: var(--warn); font-weight: 600; } td.bad { color: var(--bad); font-weight: 600; }
.bar { display: inline-block; vertical-align: middle; width: 110px; height: 8px; margin-right: 9px;
  border-radius: 4px; background: var(--track); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
.bar i.full { background: var(--warn); }
.slots { display: flex; height: 22px; border-radius: 8px; overflow: hidden;
  border: 1px solid var(--line); }
.legend { display: flex; gap: 16px; margin-top: 8px; flex-wrap: wrap; font-size: 13px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px;
  margin-right: 6px; }
footer { margin-top: 34px; font-size: 13px; } a { color: var(--accent); }
"""

_SCRIPT: Final = """
"use strict";
const byId = id => document.getElementById(id);
const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map(c => c instanceof Node ? c : String(c)));
  return element;
};
const whole = new Intl.NumberFormat("en");
const size = bytes => {
  let unit = 0;
  for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
  return bytes.toFixed(unit && bytes < 100 ? 1 : 0) + " " + ["B", "KB", "MB", "GB", "TB"][unit];
};
const share = (part, all) => all ? (100 * part / all).toFixed(1) + " %" : "–";
const sum = (groups, pick) => groups.reduce((total, group) => total + pick(group), 0);
const hue = (index, count) => `hsl(${Math.round(360 * index / count + 222) % 360} 58% 58%)`;
let before = null;

function bar(part, all) {
  const fill = make("i", part > 0.95 * all ? "full" : "");
  fill.style.width = (all ? Math.min(100, 100 * part / all) : 0) + "%";
  return make("span", "bar", fill);
}
function card(figure, label) {
  return make("div", "card", make("div", "figure", figure), make("div", "label", label));
}
function summary(state, groups) {
  const reads = sum(groups, g => g.hits + g.misses), hits = sum(groups, g => g.hits);
  const led = groups.filter(g => g.leader !== null).length;
  const now = {time: performance.now(), reads, applied: sum(groups, g => g.applied_index)};
  const rate = name => before && now.time > before.time && now[name] >= before[name]
    ? whole.format(Math.round(1000 * (now[name] - before[name]) / (now.time - before.time))) : "–";
  byId("summary").replaceChildren(
    card(`${state.members.filter(m => m.connected || m.self).length} / ${state.members.length}`,
      "members connected"),
    card(`${led} / ${groups.length}`, "groups with a leader"),
    card(whole.format(sum(groups, g => g.entries)), "entries"),
    card(size(sum(groups, g => g.bytes)), "of " + size(sum(groups, g => g.budget_bytes)) + " used"),
    card(share(hits, reads), "hit ratio"),
    card(rate("reads"), "reads/s"), card(rate("applied"), "log entries applied/s"));
  before = now;
}
function members(state) {
  byId("members").replaceChildren(...state.members.map(m => {
    const leads = state.groups.filter(g => g.leader === m.id).map(g => g.id);
    const alive = m.connected || m.self;
    return make("div", "card member", make("span", "dot" + (alive ? " good" : "")),
      make("div", "", make("b", "", m.id), make("span", "soft", m.self ? " · this node" : ""),
        make("div", "soft", m.http),
        make("div", "soft", !alive ? "not connected"
          : leads.length ? "leads " + leads.join(", ") : "leads nothing")));
  }));
}
function groupRow(g) {
  const row = make("tr", "", make("td", "", g.id), make("td", "", g.leader ?? "no leader"),
    make("td", "", g.role), make("td", "", g.term), make("td", "", whole.format(g.applied_index)),
    make("td", "", whole.format(g.lag)), make("td", "", whole.format(g.entries)),
    make("td", "", bar(g.bytes, g.budget_bytes), size(g.bytes)),
    make("td", "", share(g.hits, g.hits + g.misses)), make("td", "", whole.format(g.evictions)),
    make("td", "", whole.format(g.expirations)), make("td", "", g.policy));
  if (g.leader === null) row.children[1].className = "bad";
  if (g.lag > 0) row.children[5].className = "warn";
  return row;
}
function slots(state) {
  const ids = state.groups.map(g => g.id), colour = id => hue(ids.indexOf(id), ids.length);
  byId("slots").replaceChildren(...state.slot_ranges.map(([first, last, group]) => {
    const part = make("span", "");
    part.style.flexGrow = last - first + 1;
    part.style.background = colour(group);
    part.title = `slots ${first} to ${last}: group ${group}`;
    return part;
  }));
  byId("legend").replaceChildren(...state.groups.map(g => {
    const swatch = make("i", "");
    swatch.style.background = colour(g.id);
    return make("span", "", swatch, `group ${g.id} · ${whole.format(g.slots)} slots`);
  }));
}
function show(state) {
  const groups = state.groups;
  byId("name").textContent = state.cluster;
  byId("node").textContent = `seen from ${state.node} · version ${state.version}`;
  byId("state").textContent = state.ready ? "ready" : "not ready";
  byId("state").className = "pill " + (state.ready ? "good" : "bad");
  summary(state, groups); members(state); slots(state);
  byId("groups").replaceChildren(...groups.map(groupRow));
}
async function poll() {
  try {
    const answer = await fetch("/v1/cluster", {signal: AbortSignal.timeout(5000)});
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    show(await answer.json());
    byId("updated").textContent = "updated " + new Date().toLocaleTimeString();
  } catch (error) {
    byId("state").textContent = "no answer"; byId("state").className = "pill bad";
    byId("updated").textContent = "this node does not answer: " + error.message;
  }
  setTimeout(poll, 1000);
}
poll();
"""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>raftcache</title>
<link rel="icon" href="data:,">
<style>%s</style>
</head>
<body><main>
<header><h1>raftcache</h1><b id="name"></b><span id="state" class="pill">…</span>
<span id="node" class="soft"></span></header>
<section id="summary" class="cards"></section>
<h2>Members</h2><section id="members" class="cards"></section>
<h2>Groups</h2>
<div class="table"><table>
<thead><tr><th>Group</th><th>Leader</th><th>Here</th><th>Term</th><th>Applied</th><th>Lag</th>
<th>Entries</th><th>Memory</th><th>Hit ratio</th><th>Evicted</th><th>Expired</th><th>Policy</th>
</tr></thead><tbody id="groups"></tbody></table></div>
<h2>Slots</h2><div id="slots" class="slots"></div><div id="legend" class="legend soft"></div>
<footer class="soft"><span id="updated"></span> · <a href="/openapi.json">API</a> ·
<a href="/metrics">metrics</a> · <a href="/v1/cluster">this page as JSON</a></footer>
</main><script>%s</script></body>
</html>
"""

PAGE: Final = (_PAGE % (_STYLE, _SCRIPT)).encode()
"""The page, whole."""
