"""The look of the house: one HTML page that needs no other file and runs no script, and the parts it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A page forbids itself to load anything: pictures are in it."""

ACCENTS = ("#b84a00", "#0067a5", "#5f5f5f")
"""Of female, male and unknown: vermilion and blue are told apart by the colour-blind, all three bear white letters."""
LIGHT = "; ".join(f"--c{code}: {accent}" for code, accent in enumerate(ACCENTS))

STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1c1b19; --faint: #5f5d57; --line: #e2e0da;
  --on: #fff; --one: #3d6b57; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #161614; --card: #21211e; --ink: #eceae4;
  --faint: #a7a49b; --line: #38372f; --on: #14130f; --one: #7dbb9e; --c0: #f08a4b; --c1: #58b0e6; --c2: #a3a19a; } }
* { box-sizing: border-box; }
body { margin: 0; padding: clamp(1rem, 3vw, 2.5rem); background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1320px; margin: 0 auto; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .7rem; font-size: 1.05rem; }
p { margin: .2rem 0; color: var(--faint); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 1.4rem 0; padding: 0; list-style: none; }
.tiles li { flex: 1 1 130px; padding: .7rem 1rem; border: 1px solid var(--line); border-radius: 12px;
  background: var(--card); color: var(--faint); }
.tiles b { display: block; color: var(--ink); font-size: 1.45rem; line-height: 1.25; font-weight: 650;
  white-space: nowrap; }
.cards { columns: 2 480px; column-gap: 16px; }
.cards .card { display: inline-block; width: 100%; vertical-align: top; break-inside: avoid; }
.card { margin-bottom: 16px; padding: 1.1rem 1.2rem; border: 1px solid var(--line); border-radius: 14px;
  background: var(--card); }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .45rem; border-bottom: 1px solid var(--line); text-align: right; font-weight: 400; }
th:first-child { padding-left: 0; text-align: left; max-width: 10rem; overflow: hidden; text-overflow: ellipsis; }
thead th { color: var(--faint); font-size: .86rem; } tr:last-child > * { border-bottom: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-bottom: .5rem; color: var(--faint); }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 3px; }
.b0 { background: var(--c0); } .b1 { background: var(--c1); } .b2 { background: var(--c2); }
figure { min-width: 0; margin: 0; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(146px, 1fr)); gap: 14px; margin-top: 1rem; }
.faces img, .none { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; border-radius: 9px;
  background: var(--line); }
.none { display: grid; place-items: center; color: var(--faint); }
figcaption { font-size: .86rem; line-height: 1.4; }
figcaption div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption .mark { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .4em;
  margin: .4rem 0 .15rem; }
.mark b { padding: 0 .6em; border-radius: 1em; color: var(--on); font-weight: 600; }
figcaption .key { color: var(--faint); font-size: .74rem; white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 560px) { dl { display: block; } dt { margin-top: .45rem; }
  table { font-size: .87rem; } th, td { padding-left: .25rem; padding-right: .25rem; } }
@media print { :root { color-scheme: light; --paper: #fff; } body { padding: 0; font-size: 10pt;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .card, .tiles li, figure { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; }
  table { white-space: normal; font-size: 8.5pt; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page: `body` and `style` as they are, HTML and CSS that stand beside the house's; the title escaped."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>:root {{ {LIGHT} }}{STYLE}{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}</main>
</body>
</html>
"""


def tile_list(tiles: Iterable[tuple[str, str]]) -> str:
    """The few numbers that come first: name and value of each."""
    return (
        f'<ul class="tiles">{"".join(f"<li><b>{escape(value)}</b>{escape(name)}</li>" for name, value in tiles)}</ul>\n'
    )


def fact_list(facts: Mapping[str, str]) -> str:
    """Names and what is to be said of them, a line each."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(line)}</dd>' for name, line in facts.items())}</dl>"


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text in a box that scrolls; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row" title="{escape(row[0])}">{escape(row[0])}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def card(title: str, *parts: str) -> str:
    """A card with a title; its parts are HTML."""
    return f'<section class="card"><h2>{escape(title)}</h2>{"".join(parts)}</section>\n'
