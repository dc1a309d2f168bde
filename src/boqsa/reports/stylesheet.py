"""The looks of the report and of the page of concepts: light and dark, wide and narrow, screen and paper.

Nothing is loaded.
"""

STYLESHEET = """
:root {
  color-scheme: light dark;
  --ground: #fbfaf8; --card: #ffffff; --ink: #1f2328; --quiet: #5c636b; --line: #e2dfd9;
  --accent: #0063a0; --good: #00734f; --fair: #8a5a00; --bad: #b3401a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181b; --card: #1e2125; --ink: #e8e6e3; --quiet: #a2a8ae; --line: #34383d;
    --accent: #6cb8ec; --good: #4fc79b; --fair: #e3b04b; --bad: #f08a63;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; padding: 2.5rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main, header, footer { max-width: 62rem; margin: 0 auto; }
h1 { font-size: clamp(1.6rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p, ul { margin: .6rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
a { color: var(--accent); }
code, pre {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .875em;
}
code { overflow-wrap: anywhere; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem;
  overflow-x: auto; line-height: 1.5;
}
.quiet, figcaption, .note { color: var(--quiet); }
.note, figcaption, small { font-size: .875rem; line-height: 1.5; }
.lead { font-size: 1.0625rem; }
.cards {
  display: grid; gap: .9rem; margin: 1.5rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr));
}
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; }
.card dt { font-size: .875rem; color: var(--quiet); }
.card dd { margin: 0; font-size: 1.75rem; line-height: 1.3; font-weight: 650; }
.card dd.missing { font-size: 1rem; line-height: 2.275rem; font-weight: 400; color: var(--quiet); }
.card dd.beside { font-size: .8125rem; line-height: 1.4; font-weight: 400; color: var(--quiet); }
.card .bar {
  height: 6px; margin: .4rem 0 .45rem; overflow: hidden; border-radius: 3px; background: var(--line);
}
.bar, .bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar span { display: block; height: 100%; background: var(--accent); }
.scroll {
  overflow-x: auto; margin: .75rem 0; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px;
}
table { border-collapse: collapse; width: 100%; }
th, td { padding: .6rem .9rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { font-size: .8125rem; color: var(--quiet); font-weight: 600; vertical-align: bottom; }
thead th, tbody:first-child tr:first-child > * { border-top: 0; }
tbody th { font-weight: 600; min-width: 11rem; }
.compared tbody th { width: 60%; }
table:not(.compared) tbody th { width: 12rem; }
tbody th small { display: block; font-weight: 400; color: var(--quiet); max-width: 36rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td.missing { color: var(--quiet); font-size: .875rem; }
td code { white-space: pre-wrap; }
table:not([class]) td { overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figure .scroll { background: #fff; margin: 0 0 .6rem; }
.wide img { min-width: 42rem; width: 100%; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.curves figure { margin: 0; }
.curves img { width: 100%; border: 1px solid var(--line); border-radius: 10px; background: #fff; }
.curves figcaption { margin-top: .4rem; }
.alone { max-width: 30rem; }
.verdict, .warning {
  margin: .75rem 0; padding: .75rem 1rem; max-width: none; background: var(--card);
  border: 1px solid var(--line); border-left: 5px solid var(--tone, var(--fair)); border-radius: 8px;
}
.good { --tone: var(--good); } .fair { --tone: var(--fair); } .bad { --tone: var(--bad); }
.verdict { font-weight: 600; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--accent); font-weight: 600; padding: .25rem 0; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media (max-width: 34rem) {
  body { padding: 1.5rem .9rem 3rem; }
  h2 { margin-top: 2.25rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: .6rem; }
  .card { padding: .7rem .8rem; }
  th, td { padding: .5rem .6rem; }
  tbody th { min-width: 7rem; }
  table:not([class]) tbody th { width: 7rem; }
  .compared thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .compared tbody, .compared tr, .compared tbody th, .compared td { display: block; width: auto; }
  .compared tr + tr { border-top: 1px solid var(--line); }
  .compared tbody tr > * { border-top: 0; }
  .compared td { display: flex; justify-content: space-between; padding: 0 .6rem .35rem; }
  .compared td::before { content: attr(data-label); color: var(--quiet); font-size: .875rem; }
}
@media print {
  :root { --ground: #fff; --card: #fff; --ink: #000; --quiet: #444; --line: #bbb; --accent: #0063a0; }
  body { padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; }
  figure, tr, .card, .warning { break-inside: avoid; }
  .wide img { min-width: 0; }
  .scroll { overflow: visible; }
}
"""

CONCEPTS_STYLE = """
body { padding-bottom: 0; }
.swatch {
  display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .45em;
  border: 1px solid rgb(128 128 128 / .5); print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.slot {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.25rem 1.25rem;
  margin: 1.5rem 0; scroll-margin-top: 1rem;
}
.slot .head { display: flex; flex-wrap: wrap; gap: .5rem 2rem; align-items: center; justify-content: space-between; }
.slot h2 { margin: 0; }
.slot h2 .quiet { font-weight: 400; margin-left: .35em; }
.slot h3 { margin: 1.4rem 0 .5rem; }
.slot h3 small { font-weight: 400; margin-left: .4em; }
.about { display: flex; flex-wrap: wrap; gap: .75rem 1.75rem; margin-top: .75rem; align-items: flex-start; }
.about > div { flex: 1 1 22rem; }
.about figure { margin: 0; }
.mean img { width: 8rem; border: 1px solid var(--line); border-radius: 6px; }
.mean figcaption { font-size: .8125rem; margin-top: .25rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 .6rem; }
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.line { margin: .35rem 0; max-width: none; }
.line > .quiet { margin-right: .4rem; }
.chip {
  display: inline-block; border: 1px solid var(--line); border-radius: 999px; padding: .05rem .65rem; margin: .1rem 0;
  background: var(--ground); color: var(--ink); text-decoration: none; white-space: nowrap; font-size: .9375rem;
}
.chip small { color: var(--quiet); font-size: .8125rem; }
a.chip:hover { border-color: var(--accent); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.25rem, 1fr)); gap: .6rem; }
.gallery figure { margin: 0; }
.gallery img { width: 100%; display: block; border-radius: 4px; }
.gallery img + img { margin-top: .3rem; }
.gallery figcaption { font-size: .8125rem; line-height: 1.35; margin-top: .2rem; font-variant-numeric: tabular-nums; }
.gallery figcaption b { color: var(--ink); font-weight: 600; }
.panels { columns: 2 19rem; column-gap: 2rem; }
.shares { font-size: .875rem; break-inside: avoid; margin-bottom: .9rem; }
.shares caption { text-align: left; font-weight: 600; padding-bottom: .15rem; }
.shares th, .shares td { padding: .1rem .3rem; border: 0; vertical-align: middle; }
.shares thead th { font-weight: 400; text-align: right; font-size: .75rem; padding-bottom: 0; }
.shares tbody th { font-weight: 400; min-width: 0; width: 6.5rem; white-space: nowrap; padding-left: 0; }
table.shares:not(.compared) tbody th { width: 6.5rem; }
.shares td { text-align: right; font-variant-numeric: tabular-nums; width: 2.6rem; }
.shares td + td + td { color: var(--quiet); }
.shares td.track { position: relative; width: auto; min-width: 4rem; padding: 0; }
.track span, .track i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.track::before { content: ""; display: block; height: 10px; border-radius: 3px; background: var(--line); opacity: .55; }
.track span { position: absolute; left: 0; top: calc(50% - 5px); height: 10px; border-radius: 3px; }
.track i {
  position: absolute; top: calc(50% - 8px); height: 16px; width: 2px; margin-left: -1px; background: var(--ink);
}
.overview td.words { text-align: left; }
.overview .compared tbody th { width: auto; min-width: 12rem; }
.overview thead th { white-space: nowrap; }
.overview th.number:last-child { text-align: left; }
.overview a { text-decoration: none; color: var(--ink); }
.overview th .quiet { font-weight: 400; }
@media (max-width: 34rem) {
  .slot { padding: .8rem .8rem 1rem; }
  .overview td.words { display: block; padding-bottom: .6rem; }
  .overview td.words::before { content: none; }
}
@media print { .slot { break-inside: avoid; } }
"""
"""What the page of concepts adds."""
