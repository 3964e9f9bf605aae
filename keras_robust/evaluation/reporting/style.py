"""Style sheets of pages and pictures. Colours of Okabe & Ito, told apart without red or green, brightened on dark."""

PALETTE = """
:root{--ink:#1b1f24;--soft:#59636e;--line:#d8dee4;--paper:#fff;--panel:#f6f8fa;--warn:#fff4d6;--warn-line:#d9a400;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b2558a;--c4:#b87d00;--c5:#3d3d3d}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa5b1;--line:#343b44;--paper:#0f1318;--panel:#181e25;
--warn:#33290a;--warn-line:#c79a1b;--c0:#56b4e9;--c1:#ff8f4a;--c2:#2cc99c;--c3:#e39fc8;--c4:#f0c04a;--c5:#d0d7de}}
.s0{--s:var(--c0)}.s1{--s:var(--c1)}.s2{--s:var(--c2)}.s3{--s:var(--c3)}.s4{--s:var(--c4)}.s5{--s:var(--c5)}
"""
CHARTS = """
svg text{fill:var(--soft);font-size:12px}
svg .title{fill:var(--ink);font-size:13.5px;font-weight:600}
svg .label{fill:var(--ink)}
svg .grid{stroke:var(--line);stroke-width:1}
svg polyline{fill:none;stroke:var(--s);stroke-width:2}
svg .interval{fill:none;stroke:var(--s);stroke-width:1.2}
svg .bar{fill:var(--s);opacity:.55}
svg .track{fill:var(--panel)}
svg .marker>*{fill:var(--s);stroke:var(--paper);stroke-width:1}
"""
PAGE = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1160px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.7rem;line-height:1.2;margin:.2em 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2em 0 .6em;padding-top:.6em;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.4em 0 .5em}
.sub,.note,.at{color:var(--soft);margin:.3em 0}
.at{margin-top:1.4em}
.warnings{background:var(--warn);border-left:4px solid var(--warn-line);border-radius:4px;
padding:10px 16px;margin:18px 0}
.warnings h2{border:0;margin:0;padding:0;font-size:1rem}
.warnings ul{margin:.4em 0;padding-left:1.2em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;margin:8px 0}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.tile span{display:block;color:var(--soft);font-size:.85rem}
.tile b{display:block;font-size:1.6rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile i{font-size:1rem;font-style:normal;font-weight:400}
.tile small,td small{color:var(--soft)}
.scroll{overflow-x:auto;margin:8px 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}
th,td{padding:6px 10px 6px 0;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
thead th{color:var(--soft);font-weight:500;font-size:.85rem}
tbody th{font-weight:500}
.share{min-width:82px}
.share::after{content:"";display:block;height:4px;border-radius:2px;margin-top:3px;
background:linear-gradient(to right,var(--s) var(--share),var(--line) 0)}
.share small{margin-left:8px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:14px 0 4px}
.legend span{overflow-wrap:anywhere}
figure .legend{margin:4px 0 0 30px;font-size:.85rem}
thead th:first-child,tbody th:first-child{position:sticky;left:0;background:var(--paper)}
.key{vertical-align:-2px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:22px 26px;margin:16px 0}
figure{margin:0}
svg.chart{width:100%;height:auto;display:block;overflow:visible}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:16px}
.card{display:grid;grid-template-columns:repeat(3,1fr);gap:3px}
.card img{width:100%;height:auto;display:block;border-radius:3px}
.card img.pixels{image-rendering:pixelated}
.card figcaption{grid-column:1/-1;font-size:.88rem;line-height:1.3;margin-top:2px}
li{margin:.35em 0;overflow-wrap:anywhere}
details{margin:6px 0}
summary{cursor:pointer}
pre{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:12px;font-size:.8rem}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#ccc;--paper:#fff;--panel:#f4f4f4;--warn:#fff4d6;
--warn-line:#d9a400;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b2558a;--c4:#b87d00;--c5:#3d3d3d}
@page{margin:14mm}
body{font-size:10.5pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}
h2,h3{break-after:avoid}
figure,tr,.tile,.warnings{break-inside:avoid}
.scroll{overflow:visible}
table{font-size:8.5pt}th,td{padding-right:8px}
.charts{grid-template-columns:repeat(3,1fr);gap:14px}
.cards{grid-template-columns:repeat(3,1fr)}}
"""
STYLE = (PALETTE + CHARTS + PAGE).strip()
# Of a picture that stands alone.
FIGURE = (PALETTE + CHARTS + "svg{background:var(--paper);font-family:system-ui,sans-serif}").strip()
