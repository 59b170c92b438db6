"""How the page looks: light and dark by the reader's own choice, no font and no picture from elsewhere."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5b6670; --line: #d5dbe1; --ground: #ffffff;
  --card: #f5f7f9; --series: #1f6fb2; --good: #1d7a46; --doubtful: #9a6200; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #9aa6b2; --line: #39434d;
  --ground: #14181c; --card: #1d2329; --series: #6cb2ee;
  --good: #5fc78c; --doubtful: #e6b04a; --bad: #f2877f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main, footer { max-width: 1000px; margin: 0 auto; padding: 16px 20px; }
footer { color: var(--soft); font-size: 13px; }
h1 { margin: 8px 0 4px; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 28px 0 8px; font-size: 17px; border-bottom: 1px solid var(--line); padding-bottom: 4px; }
header p { margin: 2px 0; color: var(--soft); overflow-wrap: anywhere; } header b { color: var(--ink); }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px;
  overflow-wrap: anywhere; }
pre { background: var(--card); padding: 10px; border-radius: 6px; white-space: pre-wrap; }
.badge { font-size: 14px; font-weight: 600; padding: 2px 10px; border-radius: 12px; border: 1.5px solid;
  vertical-align: 4px; white-space: nowrap; color: var(--soft); }
.good { color: var(--good); } .doubtful { color: var(--doubtful); } .bad { color: var(--bad); }
.problems { border: 1px solid; border-left-width: 5px; border-radius: 6px; padding: 8px 12px 8px 30px; }
.problems li { color: var(--ink); } .problems code { color: var(--soft); }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 16px; align-items: flex-start; }
.pictures .row { flex-basis: 100%; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 13px; }
.pictures figure { flex: 0 1 auto; max-width: 100%; } .pictures img { max-width: 100%; display: block; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 16px; }
.curves figure { background: var(--card); border-radius: 8px; padding: 10px; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 11px;
  dominant-baseline: middle; } svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .axis { stroke: var(--soft); } svg .grid { stroke: var(--line); }
svg .line { fill: none; stroke: var(--series); stroke-width: 1.5; }
svg .dots, svg .bar { fill: var(--series); } svg .faint { opacity: 0.35; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 500; color: var(--soft); white-space: nowrap; max-width: 40vw;
  overflow: hidden; text-overflow: ellipsis; }
th, td { padding: 3px 18px 3px 0; vertical-align: top; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; }
li { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; } details { margin: 6px 0; } summary { cursor: pointer; }
@media print { details { display: none; } main { max-width: none; } }
"""
