"""Bar charts as inline SVG: coloured by the page's style sheet, labelled, readable by a screen reader."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from shard_tools.inspect.statistics import Breakdown

WIDTH, HEIGHT = 640, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 14, 46
LETTER = 6.6
"""Width of a letter of the axis labels, about."""


def bar_chart(title: str, axis: str, bars: Breakdown, series: Sequence[tuple[str, str]]) -> str:
    """Bars of each name side by side, a colour for each series: its column's name and its class in the style sheet.

    `axis` says what the names are. Every bar tells its number when pointed at; the whole has a title for those who
    cannot see it.
    """
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    ticks = nice_ticks(int(bars.counts.max()))
    scale = high / ticks[-1]
    slot = wide / len(bars.names)
    bar = min(slot * 0.84 / len(series), 44)
    parts = []
    for tick in ticks:
        y = TOP + high - tick * scale
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
    for number, (name, row) in enumerate(zip(bars.names, bars.counts.tolist(), strict=True)):
        x = LEFT + slot * (number + 0.5) - bar * len(series) / 2
        for (what, colour), count in zip(series, row, strict=True):
            if count:
                tall = max(count * scale, 0.75)
                parts.append(
                    f'<rect class="{colour}" x="{x:.1f}" y="{TOP + high - tall:.1f}" width="{bar * 0.94:.1f}" '
                    f'height="{tall:.1f}"><title>{escape(f"{name}: {count:,} {what}")}</title></rect>'
                )
            x += bar
    every, room = spacing(bars.names, slot)
    for number in range(0, len(bars.names), every):
        label = shortened(bars.names[number], room)
        x = min(LEFT + slot * (number + 0.5), WIDTH - len(label) * LETTER / 2)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{TOP + high + 18}" text-anchor="middle">{escape(label)}</text>'
        )
    parts.append(
        f'<text class="axis" x="{LEFT + wide / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(axis)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def nice_ticks(largest: int) -> list[int]:
    """Whole numbers from 0 to at least `largest`, four or so, in steps of 1, 2 or 5 times a power of ten."""
    step = next(m * 10**e for e in range(20) for m in (1, 2, 5) if m * 10**e * 5 >= largest)
    return list(range(0, max(-(-largest // step), 1) * step + 1, step))


def spacing(names: Sequence[str], slot: float) -> tuple[int, int]:
    """Which labels fit: every how many, and the letters that each has room for."""
    longest = max(map(len, names)) * LETTER + 8
    every = 1 if len(names) <= 10 else max(-(-int(longest) // max(int(slot), 1)), 1)
    return every, max(int((slot * every - 4) / LETTER), 1)


def shortened(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: max(letters - 1, 1)]}…"
