"""The hair of a drawn face: its shape, and what lies behind and in front of the head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shard_tools.synthetic.canvas import Array, Canvas, Colour, Picture, Subject, curve, ellipse, mix, ribbon, scaled

_SHEEN: Colour = (255, 240, 220)
_STRANDS = (0.06, 0.17, 0.28, 0.40, 0.51, 0.62, 0.74, 0.85, 0.96)
_BELOW_TEMPLE = 15
"""Index along a lock's edges."""


@dataclass(frozen=True)
class Hair:
    """The hair's shape in one picture. A lock is a pair of (N, 2) curves, its outer and inner edge, from the top."""

    locks: tuple[tuple[Array, Array], ...]
    bottom: float
    """Where the locks end (y)."""
    colour: Colour
    covers_ears: bool
    bald: bool
    cropped: bool

    @classmethod
    def of(cls, subject: Subject, picture: Picture) -> Hair:
        """The shape that the subject's traits give at the picture's age."""
        ageing = (picture.age - 38) / 40
        recession = min(max(subject.recession + 0.35 * ageing, 0), 1)
        length = min(subject.hair_length * (0.93 + 0.07 * picture.hair), 1)
        loose = 0.0 if subject.tied else length
        volume = (0.05 + 0.16 * subject.hair_volume) * picture.hair * (0.35 + min(loose, 0.55) * 1.3)
        volume += 0.10 * subject.hair_curl * min(length * 2, 1)
        bald = recession > 0.82 and length < 0.5
        if bald:
            volume *= 0.2
        bottom = float(np.interp(loose, [0, 0.3, 0.46, 0.6, 1], [-0.05, 0.16, 0.42, 0.95, 2.0]))
        long = min(max((loose - 0.38) / 0.15, 0), 1)
        rise = recession * (1 - 0.6 * long)
        part = subject.hair_parting

        def edges(side: int) -> tuple[Array, Array]:
            away = abs(side * 0.5 - part)  # the lock on the far side of the parting sweeps over the forehead
            sweep = (0.10 + 0.13 * away) * (0.4 + 0.6 * long) * (1 - recession)
            drop = (bottom + 0.05) / 3
            wide = 0.73 + 0.75 * volume + 0.05 * long
            flare = 0.10 * long * (0.4 + subject.hair_volume)
            outer = [
                (part * 0.6, -0.98 - volume),
                (part * 0.3 + side * 0.37, -0.87 - volume),
                (side * (0.61 + 0.8 * volume), -0.54 - 0.5 * volume),
                (side * wide, -0.05),
                (side * (wide + flare * 0.7 - 0.02), -0.05 + drop),
                (side * (wide + flare), -0.05 + 2 * drop),
                (side * (wide + flare - 0.08 * long - 0.06 * (1 - long)), bottom - 0.03),
            ]
            inner = [
                (part, -0.68 - 0.22 * max(rise - 0.35, 0)),
                (part * 0.5 + side * 0.26, -0.66 + 0.6 * sweep - 0.10 * rise),
                (side * 0.52, -0.50 + sweep - 0.34 * rise),
                (side * (0.64 - 0.02 * long), -0.12),
                (side * (0.655 - 0.04 * long), -0.05 + drop * 0.9),
                (side * (0.645 - 0.10 * long), -0.05 + 2 * drop * 0.9),
                (side * (0.66 - 0.11 * long), bottom + 0.05),
            ]
            wave = subject.hair_curl * 0.05 * long * np.sin(np.linspace(0, 13, 43) + side + picture.hair * 3)[:, None]
            return curve(outer) + wave * (side, 0), curve(inner) + wave * (side * 0.7, 0)

        grey = 1 / (1 + math.exp(-(picture.age - subject.greying_age) / 5))
        return cls(
            locks=(edges(-1), edges(1)),
            bottom=bottom,
            colour=mix(subject.hair, (196, 194, 192), 0.92 * grey),
            covers_ears=long > 0.5,
            bald=bald,
            cropped=subject.hair_length < 0.08,
        )


def draw_back_hair(canvas: Canvas, hair: Hair) -> None:
    """The hair behind the neck."""
    if hair.bottom > 0.4:
        (left, _), (right, _) = hair.locks
        canvas.fill(np.concatenate([left[::-1], right]), scaled(hair.colour, 0.62))


def draw_front_hair(canvas: Canvas, subject: Subject, hair: Hair) -> None:
    """The hair in front of the head: locks on both sides of the parting, a fringe, a bun."""
    if subject.hair_length < 0.02:
        return
    rng = np.random.default_rng(subject.texture)
    if subject.tied and not hair.bald:
        for r, gain in ((0.27, 0.85), (0.18, 1.0), (0.08, 0.9)):
            bun = ellipse(subject.hair_parting * 0.5, -1.14, r, r * 0.85)
            canvas.fill(bun, scaled(hair.colour, gain))
    for outer, inner in hair.locks:
        if hair.bald:
            below = slice(_BELOW_TEMPLE, None)
            draw_short_cut(canvas, hair, outer[below], inner[below])
        elif hair.cropped:
            draw_short_cut(canvas, hair, outer, inner)
        else:
            draw_lock(canvas, subject, hair, outer, inner, rng)
    if subject.fringe and not hair.bald and not hair.cropped:
        draw_fringe(canvas, hair, rng)


def draw_short_cut(canvas: Canvas, hair: Hair, outer: Array, inner: Array) -> None:
    """Hair of a few millimetres between two edges."""
    canvas.soft([(np.concatenate([outer, inner[::-1]]), 0.80)], hair.colour, 0.03)


def draw_lock(
    canvas: Canvas, subject: Subject, hair: Hair, outer: Array, inner: Array, rng: np.random.Generator
) -> None:
    """The hair on one side of the parting, with strands or curls and a sheen."""
    colour = hair.colour
    whole = np.concatenate([outer, inner[::-1]])
    if hair.bottom < 0.25:  # cut shorter towards the ears
        canvas.soft([(np.concatenate([outer[-25:], inner[:-26:-1]]), 0.85)], colour, 0.02)
        canvas.fill(np.concatenate([outer[:-20], inner[-21::-1]]), colour)
    else:
        canvas.fill(whole, colour)
    curly = subject.hair_curl > 0.6
    for share in _STRANDS:
        jitter, gain = rng.uniform(-0.04, 0.04), float(rng.choice([0.70, 0.82, 1.18, 1.32]))
        strand = outer * (1 - share - jitter) + inner * (share + jitter)
        if curly:
            draw_curls(canvas, strand[:: int(rng.integers(3, 6))], scaled(colour, gain**0.35), rng)
        else:
            tone = scaled(colour, gain) if gain < 1 else mix(colour, _SHEEN, 0.10 + 0.12 * gain)
            first, last = int(rng.integers(0, 14)), int(rng.integers(26, len(strand) + 1))
            canvas.stroke(strand[first:last], (0.0, 0.035, 0.05, 0.0), tone, 0.42)
    if hair.bottom < 0.3 and not curly and not subject.tied:
        draw_tufts(canvas, outer, colour, rng)
    sheen = outer[6:17] * 0.62 + inner[6:17] * 0.38
    canvas.soft([(ribbon(sheen, (0.0, 0.10, 0.0)), 0.55)], mix(colour, _SHEEN, 0.38), 0.035, within=whole)


def draw_fringe(canvas: Canvas, hair: Hair, rng: np.random.Generator) -> None:
    """Hair over the forehead."""
    edge = [(x, -0.27 + 0.28 * x * x + float(rng.uniform(-0.035, 0.035))) for x in np.linspace(-0.60, 0.60, 9)]
    top = [(0.62, -0.5), (0.40, -0.82), (0.0, -0.92), (-0.40, -0.82), (-0.62, -0.5)]
    canvas.fill(np.concatenate([curve(edge), curve(top)]), scaled(hair.colour, 0.97))
    for x in np.linspace(-0.55, 0.55, 10):
        strand = curve([(x * 0.45, -0.90), (x * 0.85, -0.6), (x, -0.30)])
        canvas.stroke(strand, (0.0, 0.04, 0.02), scaled(hair.colour, float(rng.choice([0.72, 0.85, 1.2]))), 0.45)


def draw_curls(canvas: Canvas, places: Array, colour: Colour, rng: np.random.Generator) -> None:
    """A round curl at each of the (N, 2) places."""
    radii = rng.uniform(0.045, 0.085, (len(places), 1, 1))
    gains = rng.uniform(0.92, 1.08, len(places)).tolist()
    canvas.fill_each(places[:, None] + ellipse(0, 0, 1, 1, 9) * radii, [scaled(colour, gain) for gain in gains], 0.7)


def draw_tufts(canvas: Canvas, outer: Array, colour: Colour, rng: np.random.Generator) -> None:
    """Short hair that stands up along the upper part of the outer edge."""
    base = outer[:18]
    height, lean = rng.uniform(0.02, 0.13), rng.uniform(-0.08, 0.08)
    reach = height * rng.uniform(0.5, 1.0, len(base)) * (1 - np.arange(len(base)) / 24)
    tip = np.stack([base[:, 0] * (1 + reach * 0.5) + lean * reach * 10, base[:, 1] - reach], axis=1)
    root = base * (0.90, 1.0) + (0.0, 0.10)
    side = np.array((0.043, 0.0))
    outlines = np.stack([root - side, base - side, tip, base + side, root + side], axis=1)
    canvas.fill_each(outlines, [scaled(colour, gain) for gain in rng.uniform(0.92, 1.12, len(base)).tolist()])
