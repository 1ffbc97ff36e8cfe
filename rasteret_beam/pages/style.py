"""The style sheet of pages and charts: all of it applies inside elements of the class ``rb`` only."""

from collections.abc import Sequence

from rasteret_beam.pages.colours import DARK_RAMP, KINDS, LIGHT_RAMP, ramp

LIGHT = {
    "ground": "#f5f6f8",
    "card": "#ffffff",
    "ink": "#1b2330",
    "muted": "#566173",
    "line": "#dfe3ea",
    "accent": "#1d5fa8",
    "map": "#eaeef3",
    "land": "#ffffff",
    "outline": "#7a879a",
    "warn": "#9a4a00",
}
DARK = {
    "ground": "#11151b",
    "card": "#1a2029",
    "ink": "#e8ecf2",
    "muted": "#a3aebd",
    "line": "#303a47",
    "accent": "#7fb4ee",
    "map": "#141a22",
    "land": "#232c38",
    "outline": "#66758a",
    "warn": "#f0ad64",
}
"""Colours of a light and of a dark page, by variable."""

RULES = """
.rb, .rb * { box-sizing: border-box; }
.rb { color-scheme: light dark; color: var(--ink); background: var(--ground); line-height: 1.5;
  font: 400 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Ubuntu, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
body.rb { margin: 0; }
.rb main, .rb > header, .rb > footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
.rb > header { padding-top: 40px; padding-bottom: 8px; }
.rb > footer { padding-top: 8px; padding-bottom: 40px; color: var(--muted); font-size: 13px; }
.rb h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 0; font-weight: 680; }
.rb h2 { font-size: 19px; line-height: 1.3; letter-spacing: -.01em; margin: 0; font-weight: 640; }
.rb h3 { font-size: 14.5px; line-height: 1.35; margin: 0 0 8px; font-weight: 620; }
.rb p { margin: 4px 0 0; max-width: 74ch; }
.rb .lead { color: var(--muted); margin-top: 8px; }
.rb section.part { margin: 32px 0; }
.rb section.part > header { margin-bottom: 14px; }
.rb section.part > header p { color: var(--muted); }
.rb a { color: var(--accent); }
.rb code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.rb .cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); }
.rb .cards.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.rb .cards + .cards, .rb .figures + .cards { margin-top: 16px; }
.rb .cards > .wide { grid-column: 1 / -1; }
.rb .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  min-width: 0; }
.rb .figures { display: flex; flex-wrap: wrap; gap: 1px; background: var(--line); border: 1px solid var(--line);
  border-radius: 10px; overflow: hidden; margin: 0; }
.rb .figures > div { flex: 1 1 9rem; background: var(--card); padding: 14px 18px; }
.rb .figures dt { color: var(--muted); font-size: 13px; }
.rb .figures dd { margin: 2px 0 0; font-size: 23px; line-height: 1.25; font-weight: 640; letter-spacing: -.01em; }
.rb .figures dd + dd { font-size: 13px; font-weight: 400; color: var(--muted); letter-spacing: 0; }
.rb figure { margin: 0; min-width: 0; container-type: inline-size; }
.rb figcaption { color: var(--muted); font-size: 13px; margin-top: 8px; }
.rb svg { display: block; width: 100%; height: auto; }
.rb svg text { fill: var(--muted); font-size: 12px; font-family: inherit; }
.rb svg .strong { fill: var(--ink); font-weight: 600; }
.rb svg .line { stroke: var(--line); fill: none; vector-effect: non-scaling-stroke; }
.rb svg .axis { stroke: var(--outline); fill: none; vector-effect: non-scaling-stroke; }
.rb svg .bar { fill: var(--accent); }
.rb svg .mark { stroke: var(--ink); stroke-dasharray: 3 3; vector-effect: non-scaling-stroke; }
.rb svg .sea { fill: var(--map); }
.rb svg .foot { fill: var(--land); stroke: var(--outline); stroke-width: .8; vector-effect: non-scaling-stroke; }
.rb svg .none { fill: var(--outline); fill-opacity: .55; }
.rb svg .cell { shape-rendering: crispEdges; }
.rb svg .tint { stroke: var(--card); stroke-width: .8; fill-opacity: .82; vector-effect: non-scaling-stroke; }
.rb svg .grid { stroke: var(--outline); stroke-opacity: .35; stroke-dasharray: 2 3; fill: none;
  vector-effect: non-scaling-stroke; }
.rb svg .over { paint-order: stroke; stroke: var(--map); stroke-width: 3px; stroke-linejoin: round; }
.rb .legend { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 10px 0 0; padding: 0;
  font-size: 13px; color: var(--muted); }
.rb .legend li { display: flex; align-items: baseline; gap: 6px; min-width: 0; }
.rb .legend b { color: var(--ink); font-weight: 600; }
.rb .swatch { flex: none; width: 10px; height: 10px; border-radius: 2px; background: currentColor; }
.rb .colours { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; margin-top: 10px; font-size: 13px;
  color: var(--muted); }
.rb .colours i { flex: 0 1 200px; min-width: 60px; height: 10px; border-radius: 3px;
  background: linear-gradient(90deg, var(--ramp)); }
.rb .swatch.none { color: var(--outline); opacity: .55; }
.rb .colours b { color: var(--ink); font-weight: 600; }
.rb .scroll { overflow-x: auto; max-width: 100%; }
.rb table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
.rb th, .rb td { text-align: left; vertical-align: baseline; padding: 6px 14px 6px 0; border-bottom: 1px solid
  var(--line); }
.rb tr:last-child > * { border-bottom: 0; }
.rb thead th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.rb tbody th { font-weight: 500; }
.rb th { overflow-wrap: normal; }
.rb .number { text-align: right; white-space: nowrap; }
.rb th:last-child, .rb td:last-child { padding-right: 0; }
.rb details { margin-top: 12px; }
.rb summary { cursor: pointer; color: var(--accent); font-size: 13.5px; }
.rb .note { color: var(--muted); font-size: 13px; }
.rb .warn { color: var(--warn); font-weight: 600; }
.rb .choice > input { position: absolute; opacity: 0; pointer-events: none; }
.rb .choice > .tabs { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 12px; }
.rb .tabs label { cursor: pointer; padding: 2px 10px; border: 1px solid var(--line); border-radius: 99px;
  font-size: 13px; color: var(--muted); }
.rb .choice > .panel { display: none; }
@media (max-width: 640px) {
  .rb main, .rb > header, .rb > footer { padding-left: 14px; padding-right: 14px; }
  .rb > header { padding-top: 24px; }
  .rb h1 { font-size: 24px; }
  .rb .card { padding: 14px; }
  .rb .figures dd { font-size: 20px; }
}
@container (max-width: 620px) { .rb svg.map text { font-size: 17px; } }
@container (max-width: 420px) {
  .rb svg text { font-size: 16px; }
  .rb svg.map text { font-size: 25px; }
  .rb svg .odd { display: none; }
}
@container (min-width: 900px) { .rb svg.map text { font-size: 9.5px; } }
@media print {
  .rb { background: #fff; font-size: 11pt; }
  .rb .card, .rb .figures { break-inside: avoid; }
  .rb svg *, .rb .swatch, .rb .colours i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .rb section.part { margin: 18px 0; }
  .rb details > * { display: block; }
}
"""


def _variables(colours: dict[str, str], colour_ramp: Sequence[str]) -> str:
    given = "".join(f"--{name}:{colour};" for name, colour in colours.items())
    return f".rb{{{given}--ramp:{','.join(colour_ramp)}}}" + "".join(
        f".rb .r{step}{{fill:{colour}}}" for step, colour in enumerate(colour_ramp)
    )


def style() -> str:
    """The whole style sheet."""
    kinds = "".join(f".rb .k{at}{{fill:{colour};color:{colour}}}" for at, colour in enumerate(KINDS))
    light, dark = _variables(LIGHT, ramp(LIGHT_RAMP)), _variables(DARK, ramp(DARK_RAMP))
    on_paper = "@media print{" + light + "}"
    return f"{light}{kinds}@media (prefers-color-scheme:dark){{{dark}}}{on_paper}{RULES}"
