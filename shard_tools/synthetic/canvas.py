"""What a face is drawn from, a `Subject` in a `Picture`, and the canvas that it is drawn on, in face units.

Face units: the origin lies between the eyes, x points right and y down, the crown is at y = -1 and the chin near y = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Array: TypeAlias = npt.NDArray[np.float64]
Colour: TypeAlias = tuple[float, float, float]
"""Red, green, blue in 0..255."""
BeardStyle: TypeAlias = Literal["full", "goatee", "moustache"]
Garment: TypeAlias = Literal["round", "vee", "collar", "suit", "scoop"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A person as drawn. Plain floats are 0..1 unless a field says otherwise."""

    number: int
    """From 1."""
    man: bool
    masculinity: float
    """The latent that all gender-correlated traits are drawn from; unbounded."""
    age: int
    """Years, in the first picture."""
    pictures: int
    tone_group: int
    """Which of five groups of skin tones, 0..4."""
    skin: Colour
    hair: Colour
    """Before greying."""
    iris: Colour
    greying_age: float
    """Years at which half of the hair is grey."""
    jaw: float
    chin: float
    cheek: float
    face_length: float
    eye_size: float
    eye_tilt: float
    eye_spacing: float
    brow_weight: float
    brow_height: float
    brow_arch: float
    nose_width: float
    nose_length: float
    lip_fullness: float
    mouth_width: float
    lipstick: float
    lip_tint: Colour
    """Of the lipstick."""
    eye_makeup: float
    beard: float
    beard_style: BeardStyle
    hair_length: float
    hair_volume: float
    hair_curl: float
    hair_parting: float
    """Face units, negative is to the picture's left."""
    fringe: bool
    tied: bool
    recession: float
    neck: float
    shoulders: float
    glasses: Literal["none", "round", "square"]
    frame: Colour
    earrings: bool
    garment: Garment
    asymmetry: float
    """-1..1."""
    texture: int
    """Seed of the hair's strands."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What changes from one picture of a subject to the next. Plain floats are -1..1 unless a field says otherwise."""

    number: int
    """From 0."""
    age: int
    """Years."""
    rotation: float
    """Radians."""
    yaw: float
    pitch: float
    scale: float
    """The head's half height as a fraction of the picture."""
    centre: tuple[float, float]
    """Where the face's origin is, as fractions of the picture."""
    smile: float
    mouth_open: float
    """0..1."""
    gaze: float
    beard: float
    """Multiplies the subject's beard: the days since the last shave."""
    hair: float
    """Multiplies the hair's length and volume."""
    glasses: bool
    light: tuple[float, float]
    """Where the light comes from (x, y); its length is its strength."""
    exposure: float
    """Multiplies the brightness."""
    warmth: float
    blur: float
    """Standard deviation as a fraction of the picture's side."""
    noise: float
    """Standard deviation in 0..255."""
    background: tuple[Colour, Colour]
    busy: bool
    """Whether the background has soft shapes."""
    cloth: Colour
    seed: int
    """Seed of the noise."""


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """The colour a share `t` of the way from `a` to `b`."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def scaled(colour: Colour, gain: float) -> Colour:
    """`colour` times `gain`, at most 255."""
    return (min(colour[0] * gain, 255), min(colour[1] * gain, 255), min(colour[2] * gain, 255))


def _catmull_rom(steps: int) -> Array:
    """(steps, 4) weights of the four neighbouring control points along one segment."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    powers = np.hstack([np.ones_like(t), t, t**2, t**3])
    return powers @ (np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2)


_BASIS = _catmull_rom(7)


def curve(controls: Sequence[tuple[float, float]] | Array) -> Array:
    """(N, 2) points of a smooth open curve through the (n, 2) control points."""
    p = np.asarray(controls, dtype=np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    windows = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    points: Array = np.concatenate([(_BASIS @ windows).reshape(-1, 2), p[-2:-1]])
    return points


@cache
def _circle(steps: int) -> Array:
    angle = np.linspace(0, 2 * math.pi, steps, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@cache
def _profile(widths: tuple[float, ...], steps: int) -> Array:
    """(steps, 1) half widths of a brush stroke."""
    return np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(widths)), widths)[:, None] / 2


def ellipse(x: float, y: float, rx: float, ry: float, steps: int = 20) -> Array:
    """(steps, 2) points of an ellipse."""
    outline: Array = _circle(steps) * (rx, ry) + (x, y)
    return outline


def moved(points: Array, x: float, y: float) -> Array:
    """`points` moved by (x, y)."""
    shifted: Array = points + np.array((x, y))
    return shifted


def ribbon(line: Array, widths: Sequence[float]) -> Array:
    """(2N, 2) outline of a brush stroke along `line`, whose width runs evenly through `widths`."""
    padded = np.concatenate([line[:1], line, line[-1:]])
    along = padded[2:] - padded[:-2]
    length = np.hypot(along[:, :1], along[:, 1:]) + 1e-9
    across = along[:, ::-1] * (-1, 1) / length * _profile(tuple(widths), len(line))
    outline: Array = np.concatenate([line + across, (line - across)[::-1]])
    return outline


def both(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Control points of the right half, top to bottom, made into a whole outline: left bottom, over the top, right."""
    return [(-x, y) for x, y in reversed(points) if x] + list(points)


class Canvas:
    """An image of twice the final side, drawn on in face units."""

    def __init__(self, size: int, picture: Picture) -> None:
        self.side = 2 * size
        self.image = background(picture, self.side)
        self._opaque = ImageDraw.Draw(self.image, "RGB")
        self._glazed = ImageDraw.Draw(self.image, "RGBA")
        cos, sin = math.cos(picture.rotation), math.sin(picture.rotation)
        self._turn = np.array([[cos, sin], [-sin, cos]]) * picture.scale * self.side
        self._centre = np.array(picture.centre) * self.side
        self._parallax = np.array([picture.yaw * 0.13, picture.pitch * 0.07])

    def place(self, points: Array, depth: float = 0.0) -> Array:
        """(N, 2) pixels of points in face units that lie `depth` (nose tip: 1) in front of the head's outline."""
        if depth:
            off = (points * (1 / 0.95, 1 / 1.5)) ** 2
            points = points + self._parallax * depth * np.sqrt(np.maximum(1 - off[:, :1] - off[:, 1:], 0))
        placed: Array = points @ self._turn + self._centre
        return placed

    def fill(self, points: Array, colour: Colour, alpha: float = 1.0, depth: float = 0.0) -> None:
        """A filled outline; `alpha` is its opacity."""
        xy = self.place(points, depth).ravel().tolist()
        rgb = (int(colour[0]), int(colour[1]), int(colour[2]))
        if alpha >= 1:
            self._opaque.polygon(xy, fill=rgb)
        elif alpha > 0.01:
            self._glazed.polygon(xy, fill=(*rgb, int(alpha * 255)))

    def stroke(
        self, line: Array, widths: Sequence[float], colour: Colour, alpha: float = 1.0, depth: float = 0.0
    ) -> None:
        """A brush stroke whose width runs through `widths`."""
        self.fill(ribbon(line, widths), colour, alpha, depth)

    def fill_each(self, outlines: Array, colours: Sequence[Colour], alpha: float = 1.0) -> None:
        """Fills many outlines, (M, N, 2), each in its own colour."""
        pen = self._opaque if alpha >= 1 else self._glazed
        placed = self.place(outlines.reshape(-1, 2)).reshape(len(outlines), -1).tolist()
        for xy, (r, g, b) in zip(placed, colours, strict=True):
            pen.polygon(xy, fill=(int(r), int(g), int(b), int(alpha * 255)))

    def soft(
        self,
        shapes: Sequence[tuple[Array, float]],
        colour: Colour,
        blur: float,
        within: Array | None = None,
        depth: float = 0.0,
        grain: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Glazes blurred `shapes` (outline, opacity) in `colour`, clipped to the outline `within`, times `grain`."""
        blur *= float(np.hypot(*self._turn[0])) / 2
        outlines = [self.place(points, depth) / 2 for points, _ in shapes]
        bounds = np.concatenate(outlines)
        half = self.side // 2
        low = np.clip(np.floor(bounds.min(axis=0) - 2.5 * blur), 0, half).astype(int)
        high = np.clip(np.ceil(bounds.max(axis=0) + 2.5 * blur), 0, half).astype(int)
        if (high <= low).any():
            return
        mask = Image.new("L", (int(high[0] - low[0]), int(high[1] - low[1])))
        pen = ImageDraw.Draw(mask)
        for outline, (_, alpha) in zip(outlines, shapes, strict=True):
            pen.polygon((outline - low).ravel().tolist(), fill=int(alpha * 255))
        mask = mask.filter(ImageFilter.GaussianBlur(blur))
        if grain is not None:
            mask = ImageChops.multiply(mask, Image.fromarray(grain[low[1] : high[1], low[0] : high[0]]))
        mask = mask.resize((mask.width * 2, mask.height * 2), Image.Resampling.NEAREST)
        if within is not None:
            clip = Image.new("L", mask.size)
            ImageDraw.Draw(clip).polygon((self.place(within) - 2 * low).ravel().tolist(), fill=255)
            mask = ImageChops.multiply(mask, clip)
        box = (2 * int(low[0]), 2 * int(low[1]))
        self.image.paste(
            (int(colour[0]), int(colour[1]), int(colour[2])), (*box, box[0] + mask.width, box[1] + mask.height), mask
        )


_SLANT = 0.3 * np.linspace(0, 1, 6)[None, :] + 0.7 * np.linspace(0, 1, 6)[:, None]


def background(picture: Picture, size: int) -> Image.Image:
    """(size, size) gradient between the background's two colours, with soft shapes where it is busy."""
    rng = np.random.default_rng(picture.seed + 1)
    share = np.clip(_SLANT + rng.normal(0, 0.32 if picture.busy else 0.04, (6, 6)), 0, 1)[..., None]
    grid = np.array(picture.background[0]) * (1 - share) + np.array(picture.background[1]) * share
    return Image.fromarray(grid.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


def develop(image: Image.Image, picture: Picture, rng: np.random.Generator) -> Image.Image:
    """Lights `image` as a head-like ball from one side, then exposes, tints, blurs and adds sensor noise."""
    if picture.blur:
        image = image.filter(ImageFilter.GaussianBlur(picture.blur * image.width))
    pixels = np.asarray(image, dtype=np.float32)
    side = image.width
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    x = np.tanh((grid[None, :] - picture.centre[0]) / picture.scale)
    y = np.tanh((grid[:, None] - picture.centre[1]) / picture.scale)
    light = picture.exposure * (1 + 0.30 * (picture.light[0] * x + picture.light[1] * y) - 0.05 * (x * x + y * y))
    tint = np.array([1 + 0.05 * picture.warmth, 1.0, 1 - 0.06 * picture.warmth], dtype=np.float32)
    noise = rng.standard_normal((side, side, 1), dtype=np.float32) * np.float32(picture.noise)
    lit = pixels * (light[..., None] * tint)
    lit -= np.maximum(lit - 200, 0) ** 2 / 260  # highlights roll off as on film, where clipping would bleach the skin
    return Image.fromarray(np.clip(lit + noise, 0, 255, out=lit).astype(np.uint8))
