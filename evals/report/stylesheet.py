"""The stylesheet of the report: light and dark, screen and paper, nothing from outside."""

CSS = """
:root{--bg:#f5f6f8;--card:#fff;--ink:#171c26;--soft:#5a6475;--line:#e0e4ea;--faint:#f0f2f5;
--accent:#3d4fd6;--good:#0c7a50;--goodbg:#ddf3e8;--bad:#b3261e;--badbg:#fbe3e1;--wait:#8a5a00;
--waitbg:#fdf0d2;--c0:#7c8aa0;--c1:#c98a1b;--c2:#0f8f86;--c3:#4a55d8;--c4:#a3479b;--cb:#9aa3b0}
@media (prefers-color-scheme:dark){:root{--bg:#10141b;--card:#181e28;--ink:#e8ecf3;--soft:#98a3b5;
--line:#2b3442;--faint:#1f2733;--accent:#8f9bff;--good:#55d3a0;--goodbg:#123528;--bad:#ff8f86;
--badbg:#421b19;--wait:#f0bd55;--waitbg:#3b2c0c;--c0:#94a3ba;--c1:#e6ac45;--c2:#3cc4b9;
--c3:#8b95ff;--c4:#d983d0;--cb:#6d7888}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1180px;margin:0 auto;padding:28px 20px 64px}
h1{font-size:15px;font-weight:600;color:var(--soft);margin:0;letter-spacing:.01em}
h2{font-size:18px;margin:0 0 4px;letter-spacing:-.01em}
h3{font-size:14px;margin:18px 0 6px}
p{margin:6px 0}.soft,.note{color:var(--soft)}.note{font-size:13px;max-width:78ch}
.top{display:flex;justify-content:space-between;gap:16px;flex-wrap:wrap;margin-bottom:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 22px;
margin:0 0 18px}
.hero{border-top:4px solid var(--accent)}
.hero.WINNER,.hero.CHEAPEST{border-top-color:var(--good)}
.hero.exploratory{border-top-color:var(--wait)}
.hero.exploratory .pill{background:var(--waitbg);color:var(--wait);margin-right:6px}
.hero.UNDECIDED{border-top-color:var(--wait)}.hero.INFEASIBLE{border-top-color:var(--bad)}
.headline{font-size:25px;line-height:1.28;font-weight:650;letter-spacing:-.02em;margin:10px 0 4px;
max-width:32em}
.pill{display:inline-block;border-radius:99px;padding:2px 10px;font-size:12px;font-weight:650;
letter-spacing:.03em;white-space:nowrap}
.pass,.WINNER.pill,.CHEAPEST.pill{background:var(--goodbg);color:var(--good)}
.fail,.INFEASIBLE.pill{background:var(--badbg);color:var(--bad)}
.open,.UNDECIDED.pill{background:var(--waitbg);color:var(--wait)}
.plain{background:var(--faint);color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;
margin-top:18px}
.tile{background:var(--faint);border-radius:10px;padding:10px 14px}
.tile b{display:block;font-size:22px;letter-spacing:-.02em;font-weight:650}
.tile span{display:block;color:var(--soft);font-size:12.5px}
.scroll{overflow-x:auto;margin:10px -4px 0;padding:0 4px;
background:linear-gradient(90deg,var(--card) 30%,transparent) 0 0/40px 100% no-repeat local,
linear-gradient(270deg,var(--card) 30%,transparent) 100% 0/40px 100% no-repeat local,
linear-gradient(90deg,var(--line),transparent) 0 0/12px 100% no-repeat scroll,
linear-gradient(270deg,var(--line),transparent) 100% 0/12px 100% no-repeat scroll}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:13.5px}
th{font-weight:600;color:var(--soft);text-align:left;font-size:12px;vertical-align:bottom}
th,td{padding:7px 14px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n+td:not(.n),th.n+th:not(.n){padding-left:16px}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
th:last-child,td:last-child{padding-right:2px}td.arm{white-space:nowrap}
td small{display:block;color:var(--soft);font-size:11.5px;white-space:nowrap}
tr:last-child td{border-bottom:0}tr.base td{color:var(--soft)}
tr.chosen td{background:color-mix(in srgb,var(--goodbg) 45%,transparent)}
tr.chosen td:first-child{box-shadow:inset 3px 0 0 var(--good);padding-left:10px}
td.wrap{overflow-wrap:anywhere}td.prose{overflow-wrap:break-word;min-width:11em}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:7px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:18px;margin-bottom:18px}
.two .card{min-width:0;margin:0}.few{max-width:560px}
@media(max-width:860px){.two{grid-template-columns:1fr}}
svg{display:block;width:100%;height:auto;margin-top:10px}
svg text{fill:var(--ink);font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
svg .t2{fill:var(--soft);font-size:11px}svg .axis{stroke:var(--line)}
svg .zero{stroke:var(--soft);stroke-dasharray:3 3}svg .band{fill:var(--faint)}
svg .curve{fill:none;stroke-width:2}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:18px}
.charts h3{margin-bottom:0}.narrow{display:none}
@media(max-width:640px){.wide{display:none}.narrow{display:block}main{padding:16px 10px 40px}
.card{padding:16px 14px}.headline{font-size:20px}svg.half text{font-size:17px}
svg.half .t2{font-size:16px}
th:first-child,td:first-child{position:sticky;left:-4px;background:var(--card);z-index:1;
max-width:42vw}
td:first-child.wrap,td:first-child.prose{min-width:0}td:first-child small{white-space:normal}
td.metric{min-width:9.5em}
tr.chosen td:first-child{background:color-mix(in srgb,var(--goodbg) 45%,var(--card))}}
ul.flaws{list-style:none;margin:10px 0 0;padding:0}ul.flaws li{margin:8px 0}
ul.flaws .pill{margin-right:6px}
.h0{background:color-mix(in srgb,var(--accent) 5%,transparent)}
.h1{background:color-mix(in srgb,var(--accent) 10%,transparent)}
.h2{background:color-mix(in srgb,var(--accent) 15%,transparent)}
.h3{background:color-mix(in srgb,var(--accent) 20%,transparent)}
.h4{background:color-mix(in srgb,var(--accent) 25%,transparent)}
.h5{background:color-mix(in srgb,var(--accent) 30%,transparent)}
.h6{background:color-mix(in srgb,var(--accent) 35%,transparent)}
.h7{background:color-mix(in srgb,var(--accent) 40%,transparent)}
.h8{background:color-mix(in srgb,var(--accent) 45%,transparent)}
.h9{background:color-mix(in srgb,var(--accent) 50%,transparent)}
svg .front{fill:none;stroke:var(--soft);stroke-width:1.3;stroke-dasharray:5 4}
svg .tie{stroke:var(--soft);fill:var(--soft)}svg .up{stroke:var(--good);fill:var(--good)}
svg .down{stroke:var(--bad);fill:var(--bad)}
.s0{stroke:var(--c0);fill:var(--c0);background:var(--c0)}
.s1{stroke:var(--c1);fill:var(--c1);background:var(--c1)}
.s2{stroke:var(--c2);fill:var(--c2);background:var(--c2)}
.s3{stroke:var(--c3);fill:var(--c3);background:var(--c3)}
.s4{stroke:var(--c4);fill:var(--c4);background:var(--c4)}
.sb{stroke:var(--cb);fill:var(--cb);background:var(--cb)}
.bar{stroke:none;opacity:.8}.whisk{stroke:var(--ink);stroke-width:1.3;fill:none}
ul.why{margin:8px 0 0;padding-left:20px}ul.why li{margin:3px 0}
.by{margin:16px 0 0}
details{border-top:1px solid var(--line);padding:9px 0}
details:first-of-type{margin-top:10px}details:last-of-type{padding-bottom:0}
summary{cursor:pointer;font-weight:550}summary .soft{font-weight:400}
.said{display:grid;align-items:start;gap:10px;margin:10px 0;
grid-template-columns:repeat(auto-fit,minmax(220px,1fr))}
.said>div{background:var(--faint);border-radius:8px;padding:9px 12px;font-size:13.5px;min-width:0}
.said p,.passage p{white-space:pre-wrap;overflow-wrap:anywhere}
.passage{border-left:3px solid var(--line);padding:2px 0 2px 12px;margin:8px 0;font-size:13px}
.passage.gold{border-left-color:var(--good)}
code{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:12.5px;margin-top:22px}
@media print{body{background:#fff;font-size:11pt}main{max-width:none;padding:0}
.card{border-color:#ccc;break-inside:avoid-page}.card.long{break-inside:auto}
.scroll{overflow:visible}summary{list-style:none}a{color:inherit}}
"""
