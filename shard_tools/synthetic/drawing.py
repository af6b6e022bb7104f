"""Draws the parts of a face, back to front. Face units and curves are those of `canvas`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from shard_tools.synthetic.canvas import (
    Array,
    Canvas,
    Colour,
    Picture,
    Subject,
    both,
    curve,
    develop,
    ellipse,
    mix,
    moved,
    scaled,
)
from shard_tools.synthetic.hair import Hair, draw_back_hair, draw_front_hair


def draw_face(subject: Subject, picture: Picture, size: int) -> Image.Image:
    """A (size, size) RGB image of `subject` as in `picture`; the same arguments give the same pixels."""
    canvas = Canvas(size, picture)
    rng = np.random.default_rng(picture.seed)
    grain = rng.integers(135, 256, (size, size), dtype=np.uint8)
    face = face_outline(subject)
    hair = Hair.of(subject, picture)
    draw_back_hair(canvas, hair)
    draw_body(canvas, subject, picture, face)
    draw_head(canvas, subject, picture, face, hair)
    draw_wrinkles(canvas, subject, picture)
    draw_beard(canvas, subject, picture, face, hair, grain)
    draw_mouth(canvas, subject, picture)
    draw_nose(canvas, subject)
    for side in (-1, 1):
        draw_eye(canvas, subject, picture, side)
        draw_brow(canvas, subject, picture, hair, side)
    if picture.glasses and subject.glasses != "none":
        draw_glasses(canvas, subject)
    draw_front_hair(canvas, subject, hair)
    return develop(canvas.image.reduce(2), picture, rng)


def face_outline(subject: Subject) -> Array:
    """(N, 2) outline of the head without hair and ears."""
    cheek = 0.66 + 0.08 * subject.cheek
    jaw = 0.43 + 0.19 * subject.jaw
    chin = 0.13 + 0.17 * subject.chin
    bottom = 0.92 + 0.14 * subject.face_length
    lean = 0.015 * subject.asymmetry
    right = [(0.0, -0.98), (0.36, -0.90), (0.60, -0.55), (cheek, 0.0), (cheek * 0.96, 0.30), (jaw, 0.66 * bottom)]
    points = np.array([*both([*right, (chin, 0.965 * bottom)]), (lean, bottom)])
    points[:, 0] *= 1 + lean * np.sign(points[:, 0])
    return curve(np.concatenate([points[-1:], points, points[:1]]))


def draw_body(canvas: Canvas, subject: Subject, picture: Picture, face: Array) -> None:
    """Neck, shoulders and clothes, with the head's shadow on the neck."""
    neck = 0.31 + 0.17 * subject.neck
    wide = 1.25 + 0.55 * subject.shoulders
    slope = 1.52 - 0.10 * subject.shoulders
    throat = curve(both([(neck, 0.5), (neck * 0.98, 1.1), (neck * 1.25, 1.42), (wide * 0.8, slope + 0.2), (wide, 3)]))
    canvas.fill(throat, scaled(subject.skin, 0.93))
    canvas.soft([(face * [0.9, 1] + [0.05 * picture.light[0], 0.14], 0.55)], shadow_of(subject), 0.07, within=throat)
    cloth, dark = picture.cloth, scaled(picture.cloth, 0.72)
    dip, open_to = {"round": (0.18, 1.30), "vee": (0.42, 1.20), "collar": (0.32, 1.15), "suit": (0.5, 1.12)}.get(
        subject.garment, (0.30, 1.75)
    )
    edge = neck * open_to
    top = 1.27 + 0.12 * (open_to - 1)
    outline = [(-wide * 1.02, 3.2), (-wide, slope + 0.42), (-wide * 0.72, slope + 0.06), (-edge, top)]
    left, right = curve(outline), curve([(-x, y) for x, y in reversed(outline)])
    bow = 0.5 if subject.garment in ("round", "scoop") else 0.15
    neckline = curve([(-edge, top), (-edge * (0.5 + bow * 0.4), top + dip * (0.45 + bow * 0.7)), (0, top + dip + 0.02),
                      (edge * (0.5 + bow * 0.4), top + dip * (0.45 + bow * 0.7)), (edge, top)])  # fmt: skip
    if subject.garment == "suit":
        shirt = np.array([(-edge, top), (0, top + 0.2), (edge, top), (0.3, 3), (-0.3, 3)])
        canvas.fill(shirt, (232, 233, 236))
        canvas.fill(
            np.array([(-0.07, top + 0.24), (0.07, top + 0.24), (0.14, 3), (-0.14, 3)]), scaled(subject.frame, 1.3)
        )
    canvas.fill(np.concatenate([left, neckline, right]), cloth)
    canvas.stroke(neckline, (0.05,), dark, 0.8)
    if subject.garment in ("collar", "suit"):
        for side in (-1, 1):
            flap = [
                (side * edge, top - 0.04),
                (side * edge * 1.3, top + 0.14),
                (side * 0.22, top + 0.42),
                (0, top + 0.2),
            ]
            canvas.fill(np.array(flap), scaled(cloth, 1.12) if subject.garment == "collar" else (240, 240, 242))
            canvas.stroke(np.array(flap[1:]), (0.02,), dark, 0.7)


def shadow_of(subject: Subject) -> Colour:
    """The colour that shaded skin tends to."""
    r, g, b = subject.skin
    return (r * 0.62, g * 0.50, b * 0.46)


def draw_head(canvas: Canvas, subject: Subject, picture: Picture, face: Array, hair: Hair) -> None:
    """Ears, skin and its soft shading."""
    skin, shadow = subject.skin, shadow_of(subject)
    cheek = 0.66 + 0.08 * subject.cheek
    if not hair.covers_ears:
        for side in (-1, 1):
            x = side * (cheek + 0.03 - 0.05 * side * picture.yaw)
            canvas.fill(ellipse(x, 0.10, 0.085, 0.19), scaled(skin, 0.90))
            canvas.stroke(curve([(x, -0.02), (x + side * 0.035, 0.05), (x + side * 0.01, 0.18)]), (0.03,), shadow, 0.55)
            if subject.earrings:
                canvas.fill(ellipse(x, 0.31, 0.035, 0.045, 10), (226, 204, 150))
    canvas.fill(face, skin)
    toward = -1 if picture.light[0] > 0 else 1
    strength = min(abs(picture.light[0]), 1)
    socket = 0.20 + 0.08 * subject.brow_weight
    far = np.array(
        [(toward * 0.50, -0.9), (toward * 1.0, -0.5), (toward * 1.0, 1.1), (toward * 0.18, 1.1), (toward * 0.50, 0.3)]
    )
    nose = np.array([(toward * 0.05, -0.08), (toward * 0.17, 0.40), (0, 0.47), (toward * 0.02, 0.3)])
    shapes = [
        (far, 0.10 + 0.28 * strength),
        (ellipse(-0.30, -0.04, 0.20, 0.12), socket),
        (ellipse(0.30, -0.04, 0.20, 0.12), socket),
        (nose, 0.18 + 0.22 * strength),
        (ellipse(0, 0.79, 0.15, 0.035), 0.30),
        (np.array([(-0.8, -1.1), (0.8, -1.1), (0.72, -0.66), (0, -0.78), (-0.72, -0.66)]), 0.0 if hair.bald else 0.25),
    ]
    canvas.soft(shapes, shadow, 0.055, within=face)
    near = -toward
    glow = [
        (ellipse(near * 0.18, -0.52, 0.30, 0.16), 0.20 + 0.1 * hair.bald),
        (ellipse(near * 0.36, 0.20, 0.14, 0.08), 0.24),
        (ellipse(0.0, 0.18, 0.035, 0.20), 0.30),
        (ellipse(near * 0.05, 0.89, 0.10, 0.05), 0.18),
    ]
    canvas.soft(glow, mix(skin, (255, 250, 240), 0.6), 0.06, within=face, depth=0.6)
    blush = mix(skin, (214, 84, 84), 0.5)
    rosy = 0.16 + 0.28 * subject.lipstick
    cheeks = [(ellipse(side * 0.42, 0.27, 0.15, 0.10), rosy) for side in (-1, 1)]
    canvas.soft([*cheeks, (ellipse(0, 0.36, 0.08, 0.06), 0.12)], blush, 0.07, within=face, depth=0.5)


def draw_wrinkles(canvas: Canvas, subject: Subject, picture: Picture) -> None:
    """Forehead lines, crow's feet, bags under the eyes and nasolabial folds; a smile deepens the last."""
    old = min(max((picture.age - 28) / 42, 0), 1)
    line = scaled(shadow_of(subject), 0.95)
    for k in range(3):
        y = -0.40 - 0.085 * k
        arc = curve([(-0.36 + 0.05 * k, y + 0.02), (0.0, y - 0.015), (0.36 - 0.04 * k, y + 0.02)])
        canvas.stroke(arc, (0.0, 0.022, 0.022, 0.0), line, 0.55 * max(old - 0.15 * k, 0), depth=0.5)
    for side in (-1, 1):
        fold = curve([(side * 0.17, 0.37), (side * 0.28, 0.50), (side * 0.31, 0.66)])
        canvas.stroke(fold, (0.0, 0.03, 0.0), line, 0.08 + 0.5 * old + 0.15 * max(picture.smile, 0), depth=0.6)
        bag = curve([(side * 0.18, 0.10), (side * 0.30, 0.15), (side * 0.42, 0.10)])
        canvas.stroke(bag, (0.0, 0.025, 0.0), line, 0.10 + 0.45 * old, depth=0.6)
        for dy in (-0.03, 0.03):
            crow = curve([(side * 0.50, dy), (side * 0.56, dy * 2), (side * 0.61, dy * 2.6)])
            canvas.stroke(crow, (0.016, 0.0), line, 0.5 * max(old - 0.2, 0), depth=0.4)


def draw_beard(
    canvas: Canvas, subject: Subject, picture: Picture, face: Array, hair: Hair, grain: npt.NDArray[np.uint8]
) -> None:
    """Stubble, moustache or beard, whose opacity and length grow with the amount."""
    amount = subject.beard * picture.beard
    if amount < 0.04:
        return
    length = 0.10 * max(amount - 0.45, 0)
    opacity = min(0.95 * amount**0.7, 0.95)
    moustache = curve([(-0.29, 0.66), (-0.17, 0.49), (0, 0.455), (0.17, 0.49), (0.29, 0.66), (0.18, 0.59), (0, 0.575),
                       (-0.18, 0.59), (-0.29, 0.66)])  # fmt: skip
    shapes = [(moustache, opacity)]
    if subject.beard_style == "full":
        low = face[face[:, 1] > 0.12]
        low = low[np.argsort(np.arctan2(low[:, 1] + 0.2, low[:, 0]))][::-1] * [1 + length * 0.7, 1 + length]
        inner = curve([(0.58, 0.10), (0.54, 0.38), (0.33, 0.60), (0.25, 0.72), (0.0, 0.75), (-0.25, 0.72),
                       (-0.33, 0.60), (-0.54, 0.38), (-0.58, 0.10)])  # fmt: skip
        shapes.append((np.concatenate([low, inner]), opacity))
    elif subject.beard_style == "goatee":
        shapes.append((curve([(-0.30, 0.62), (-0.26, 0.86), (0, 1.0 + length), (0.26, 0.86), (0.30, 0.62), (0.24, 0.72),
                              (0, 0.76), (-0.24, 0.72), (-0.30, 0.62)]), opacity))  # fmt: skip
    colour = mix(scaled(hair.colour, 0.85), scaled(subject.skin, 0.55), 0.5 * (1 - min(amount * 1.4, 1)))
    canvas.soft(shapes, colour, 0.022, depth=0.15, grain=grain, within=face * (1.002 + length))


def draw_mouth(canvas: Canvas, subject: Subject, picture: Picture) -> None:
    """Lips, and the teeth between them when the mouth is open."""
    smile, gape = picture.smile, 0.11 * picture.mouth_open
    half = (0.205 + 0.055 * subject.mouth_width) * (1 + 0.16 * smile)
    upper, lower = 0.022 + 0.048 * subject.lip_fullness, 0.040 + 0.065 * subject.lip_fullness
    y, corner = 0.625 + 0.02 * subject.face_length, -0.055 * smile
    natural = mix(scaled(subject.skin, 0.80), (176, 82, 84), 0.42)
    lip = mix(natural, subject.lip_tint, 0.85 * subject.lipstick)
    ends = (-half, y + corner), (half, y + corner)
    sag = 0.02 * smile
    bow = curve([ends[0], (-half * 0.45, y - upper * 0.85 - gape * 0.25), (-0.05, y - upper * 1.1 - gape * 0.3),
                 (0, y - upper * 0.85 - gape * 0.3), (0.05, y - upper * 1.1 - gape * 0.3),
                 (half * 0.45, y - upper * 0.85 - gape * 0.25), ends[1]])  # fmt: skip
    seam = curve(
        [
            ends[0],
            (-half * 0.5, y + sag - gape * 0.25),
            (0, y + sag - gape * 0.3),
            (half * 0.5, y + sag - gape * 0.25),
            ends[1],
        ]
    )
    seam_low = curve(
        [ends[0], (-half * 0.5, y + sag + gape * 0.6), (0, y + sag + gape), (half * 0.5, y + sag + gape * 0.6), ends[1]]
    )
    rim = curve([ends[0], (-half * 0.5, y + lower * 0.8 + sag + gape * 0.8), (0, y + lower + sag + gape),
                 (half * 0.5, y + lower * 0.8 + sag + gape * 0.8), ends[1]])  # fmt: skip
    depth = 0.75
    canvas.fill(np.concatenate([seam_low, rim[::-1]]), scaled(lip, 1.08), depth=depth)
    canvas.fill(np.concatenate([bow, seam[::-1]]), scaled(lip, 0.88), depth=depth)
    if gape > 0.015:
        canvas.fill(np.concatenate([seam, seam_low[::-1]]), (70, 26, 28), depth=depth)
        teeth = np.clip(moved(seam, 0, 0.6 * gape), None, np.maximum(seam, seam_low))
        canvas.fill(np.concatenate([seam, teeth[::-1]]) * [0.93, 1], (238, 234, 226), depth=depth)
    else:
        canvas.stroke(seam, (0.012, 0.022, 0.012), scaled(lip, 0.42), 0.9, depth)
    shine = curve([(-0.08, y + lower * 0.5 + sag + gape), (0.06, y + lower * 0.5 + sag + gape)])
    canvas.stroke(shine, (0.0, lower * 0.35, 0.0), (255, 235, 230), 0.22 + 0.2 * subject.lipstick, depth)


def draw_nose(canvas: Canvas, subject: Subject) -> None:
    """Nostrils, wings and tip."""
    half, y = 0.105 + 0.065 * subject.nose_width, 0.37 + 0.06 * subject.nose_length
    line = scaled(shadow_of(subject), 0.78)
    for side in (-1, 1):
        wing = curve([(side * half * 0.92, y - 0.09), (side * half * 1.12, y - 0.02), (side * half * 0.88, y + 0.03)])
        canvas.stroke(wing, (0.005, 0.032, 0.018), line, 0.7, depth=0.95)
        canvas.fill(ellipse(side * half * 0.52, y + 0.02, 0.036, 0.017, 10), scaled(line, 0.62), 0.85, depth=1.0)
    canvas.stroke(
        curve([(-half * 0.5, y + 0.045), (0, y + 0.06), (half * 0.5, y + 0.045)]), (0, 0.025, 0), line, 0.45, 1.0
    )


def draw_eye(canvas: Canvas, subject: Subject, picture: Picture, side: int) -> None:
    """One eye; `side` is -1 for the one to the picture's left, 1 for the other."""
    size, makeup = subject.eye_size, subject.eye_makeup
    x, y = side * (0.275 + 0.045 * subject.eye_spacing), 0.012 * side * subject.asymmetry
    w, h = 0.128 + 0.036 * size, 0.058 + 0.042 * size - 0.012 * max(picture.smile, 0)
    tilt = 0.05 * (subject.eye_tilt - 0.35)
    t = np.linspace(-1, 1, 13)
    slant = y + 0.012 - (tilt + 0.01) * t
    top = np.stack([x + side * w * t, slant - h * (1 - np.abs(t + 0.08) ** 2.3).clip(0)], axis=1)
    low = np.stack([x + side * w * t, slant + 0.62 * h * (1 - np.abs(t - 0.1) ** 2.2).clip(0)], axis=1)
    skin, depth = subject.skin, 0.8
    if makeup > 0.15:
        lid = np.concatenate([moved(top, 0, -0.085), moved(top[::-1], 0, 0.01)])
        canvas.soft([(lid, 0.75 * makeup)], mix(skin, scaled(subject.frame, 0.75), 0.6), 0.025, depth=depth)
    canvas.fill(np.concatenate([top, low[::-1]]), (240, 237, 233), depth=depth)
    radius = 0.072 + 0.012 * size
    cx = x + 0.035 * picture.gaze
    for r, colour in (
        (radius, scaled(subject.iris, 0.6)),
        (radius * 0.82, subject.iris),
        (radius * 0.45, (18, 14, 14)),
    ):
        disc = ellipse(cx, y, r, r, 18)
        order = np.argsort(top[:, 0])
        disc[:, 1] = np.clip(
            disc[:, 1],
            np.interp(disc[:, 0], top[order, 0], top[order, 1]),
            np.interp(disc[:, 0], low[order, 0], low[order, 1]),
        )
        canvas.fill(disc, colour, depth=depth)
    glint = 0.03 if picture.light[0] > 0 else -0.03
    canvas.fill(ellipse(cx + glint, y - 0.028, 0.02, 0.02, 8), (255, 255, 255), depth=depth)
    canvas.stroke(
        moved(top, 0, 0.006),
        (0.018, 0.03 + 0.022 * makeup, 0.03 + 0.04 * makeup),
        mix(shadow_of(subject), (24, 16, 16), 0.6 + 0.4 * makeup),
        depth=depth,
    )
    canvas.stroke(low, (0.0, 0.012, 0.018), mix(shadow_of(subject), (30, 20, 20), makeup), 0.55, depth)
    canvas.stroke(moved(top, 0, -0.045), (0.0, 0.016, 0.006), shadow_of(subject), 0.6, depth)
    if makeup > 0.2:
        for k, reach in ((12, 0.085), (10, 0.075), (8, 0.06)):
            tip = top[k] + [side * reach * 0.75, -reach * 0.62]
            canvas.stroke(
                np.stack([top[k], (top[k] + tip) / 2 + [0, 0.008], tip]),
                (0.026, 0.016, 0.004),
                (20, 14, 14),
                min(makeup * 1.3, 1),
                depth,
            )


def draw_brow(canvas: Canvas, subject: Subject, picture: Picture, hair: Hair, side: int) -> None:
    """One eyebrow."""
    y = -0.155 - 0.065 * subject.brow_height - 0.015 * max(picture.smile, 0) + 0.01 * side * subject.asymmetry
    arch = 0.03 + 0.05 * subject.brow_arch
    weight = 0.028 + 0.062 * subject.brow_weight
    line = curve(
        [(side * 0.14, y + 0.016), (side * 0.25, y - arch * 0.7), (side * 0.37, y - arch), (side * 0.49, y + 0.035)]
    )
    colour = mix(scaled(hair.colour, 0.62), (38, 26, 20), 0.25)
    canvas.stroke(
        line, (weight * 0.75, weight, weight * 0.9, weight * 0.25), colour, 0.62 + 0.3 * subject.brow_weight, 0.75
    )
    core = moved(line[2:-5], 0, weight * 0.12)
    canvas.stroke(core, (weight * 0.45, weight * 0.4, 0.0), scaled(colour, 0.7), 0.5, 0.75)


def draw_glasses(canvas: Canvas, subject: Subject) -> None:
    """Frame and lenses."""
    for side in (-1, 1):
        power = 2.0 if subject.glasses == "round" else 4.5
        angle = np.linspace(0, 2 * math.pi, 29)
        cos, sin = np.cos(angle), np.sin(angle)
        lens = np.stack([np.sign(cos) * np.abs(cos) ** (2 / power), np.sign(sin) * np.abs(sin) ** (2 / power)], axis=1)
        lens = lens * [0.225, 0.185 if subject.glasses == "round" else 0.155] + [side * 0.30, 0.03]
        canvas.fill(lens, (235, 245, 255), 0.13, 0.7)
        canvas.stroke(lens, (0.028,), subject.frame, depth=0.7)
        canvas.stroke(
            np.array([(side * 0.52, -0.02), (side * 0.60, -0.03), (side * 0.70, -0.02)]),
            (0.03,),
            subject.frame,
            depth=0.5,
        )
        canvas.stroke(
            curve([(side * 0.30 - 0.10, 0.12), (side * 0.30 + 0.02, -0.06)]),
            (0.0, 0.03, 0.0),
            (255, 255, 255),
            0.28,
            0.7,
        )
    canvas.stroke(curve([(-0.09, 0.0), (0, -0.03), (0.09, 0.0)]), (0.03,), subject.frame, depth=0.85)
