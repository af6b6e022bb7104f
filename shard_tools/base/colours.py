"""The colours of pages, charts and sheets, safe for the colour-blind."""

from __future__ import annotations

INK, FAINT, LINE, CARD, ONE = "#1c1b19", "#5f5d57", "#e2e0da", "#ffffff", "#3d6b57"
"""Of text, of text beside it, of lines, of cards, and of a chart's only series."""

ACCENTS = ("#b84a00", "#0067a5", "#5f5f5f")
"""Of female, male and unknown: vermilion, blue and grey, all dark enough for white letters."""

SERIES = ("#3d6b58", "#9a3d87", "#8a6500", "#3557a8", "#a83232", "#4d7a12")
"""Of runs beside each other; charts also give each its marker and dashes."""

NAMES = {
    "ink": INK,
    "faint": FAINT,
    "line": LINE,
    "card": CARD,
    "one": ONE,
    **{f"c{code}": accent for code, accent in enumerate(ACCENTS)},
    **{f"s{code}": colour for code, colour in enumerate(SERIES)},
}
"""The CSS variable of each colour: pages give it another value on a dark screen."""


def accent(label: int) -> int:
    """The index in ACCENTS of a gender's label: 0, 1, and 2 for any other."""
    return label if 0 <= label < len(ACCENTS) - 1 else len(ACCENTS) - 1
