"""Who is drawn, and how: subjects and their pictures as a seed has them.

How hard the task is was chosen, not found. Each subject has one latent masculinity m, drawn from N(+d/2, 1) for men and
from N(-d/2, 1) for women, and every gender-correlated trait is drawn from m plus noise of its own: gender reaches the
pixels only through m. The best guess from m itself is its sign, right with probability Phi(d/2). A picture shows m only
through the traits: each of them measures m with variance s_i**2, together with variance v = 1 / sum(1 / s_i**2), and
the best guess from all of them is right with probability Phi(d / (2 sqrt(1 + v))). With `SEPARATION` d = 3.8 and the
`SPREAD` below, v = 0.07: 97.1 % from m and 96.7 % from the traits, a little less from pixels, where traits saturate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from shard_tools.synthetic.canvas import Colour, Garment, Picture, Subject, mix, scaled

SEPARATION = 3.8
"""Distance d between the mean masculinities of men and women, in standard deviations of either."""

SPREAD = {
    "beard": 0.9,
    "brow_arch": 1.6,
    "brow_height": 1.4,
    "brow_weight": 0.9,
    "chin": 1.3,
    "clothes": 1.8,
    "earrings": 1.2,
    "eye_makeup": 1.0,
    "eye_size": 1.1,
    "hair_length": 1.1,
    "jaw": 0.9,
    "lip_fullness": 1.0,
    "lipstick": 0.9,
    "neck": 1.0,
    "nose_width": 1.6,
    "recession": 1.6,
    "shoulders": 1.3,
}
"""Standard deviation s_i of each gender-correlated trait about the subject's masculinity."""

MAX_PICTURES = 6
"""Of one subject."""


# Anchors of the drawn skin tones, from light to dark, and of hair colours, from dark to light.
_SKIN = (
    (246, 216, 196),
    (236, 197, 168),
    (224, 176, 138),
    (190, 138, 100),
    (150, 100, 70),
    (108, 70, 50),
    (82, 54, 41),
)
_GROUP_TONE = (0.12, 0.84, 0.27, 0.54, 0.40)
_HAIR = ((26, 20, 19), (48, 33, 26), (82, 54, 36), (124, 84, 50), (186, 142, 86), (222, 188, 128), (140, 62, 34))
_LIGHT_HAIR = (0.10, 0.18, 0.22, 0.18, 0.14, 0.09, 0.09)
_DARK_HAIR = (0.52, 0.30, 0.12, 0.03, 0.01, 0.01, 0.01)
_IRIS = ((66, 42, 26), (92, 60, 34), (112, 96, 54), (88, 116, 84), (84, 122, 158), (116, 134, 146))
_LIPS = ((186, 30, 58), (204, 62, 92), (150, 30, 66), (200, 78, 66), (172, 62, 78))
_FRAMES = ((28, 26, 28), (74, 46, 32), (52, 58, 84), (128, 44, 52), (120, 112, 104), (84, 60, 100))
_CLOTH = ((44, 52, 74), (60, 62, 66), (228, 226, 220), (152, 52, 56), (70, 108, 140), (88, 118, 88), (206, 172, 110),
          (126, 92, 138), (36, 36, 40), (204, 132, 122), (52, 112, 112), (150, 152, 158))  # fmt: skip
_WALL = ((196, 206, 214), (176, 186, 196), (222, 214, 200), (150, 166, 182), (206, 216, 204), (214, 200, 206),
         (120, 132, 146), (232, 232, 230), (168, 150, 132), (104, 124, 120))  # fmt: skip


def _generator(seed: int, subject: int, stream: int) -> np.random.Generator:
    """Random numbers of one stream of one subject: 0 for the subject itself, n + 1 for its picture n."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(subject, stream)))


def _ramp(anchors: tuple[Colour, ...], t: float) -> Colour:
    """The colour at 0 <= t <= 1 along evenly spaced anchors."""
    place = min(max(t, 0.0), 1.0) * (len(anchors) - 1)
    low = min(int(place), len(anchors) - 2)
    return mix(anchors[low], anchors[low + 1], place - low)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...], spread: float = 12) -> Colour:
    """One of the colours, with a small random change."""
    r, g, b = np.clip(np.array(colours[int(rng.integers(len(colours)))]) + rng.normal(0, spread, 3), 0, 255).tolist()
    return (r, g, b)


def squash(z: float, width: float = 2.6) -> float:
    """A trait's place 0..1 in its range; 0.5 for z = 0."""
    return 0.5 + 0.5 * math.tanh(z / width)


def sample_subject(seed: int, number: int) -> Subject:
    """Subject `number` (from 1) of the data set `seed`. Of subjects 2k - 1 and 2k one is a man, one a woman."""
    first_is_man = bool(_generator(seed, (number + 1) // 2, MAX_PICTURES + 1).integers(2))
    man = first_is_man == (number % 2 == 1)
    rng = _generator(seed, number, 0)
    m = float(rng.normal(SEPARATION / 2 if man else -SEPARATION / 2))
    z = {trait: m + spread * float(rng.normal()) for trait, spread in SPREAD.items()}
    age = 16 + int(61 * rng.beta(1.5, 2.6))

    def free(low: float = 0.0, high: float = 1.0) -> float:
        return float(rng.uniform(low, high))

    group = int(rng.choice(5, p=[0.36, 0.24, 0.16, 0.12, 0.12]))
    tone = _GROUP_TONE[group] + rng.normal(0, 0.07)
    light_eyes = free() < 0.75 - 1.9 * tone
    hair = _HAIR[int(rng.choice(7, p=_LIGHT_HAIR if tone < 0.24 else _DARK_HAIR))]
    curl = free() ** 1.6 if tone < 0.62 else free(0.3, 1.0)
    length = squash(-z["hair_length"] + 0.2)
    unshaven = free() < 0.62
    garments: tuple[Garment, ...] = ("suit", "collar", "round", "vee", "scoop")
    garment = garments[min(max(int(5 * squash(-z["clothes"] + rng.normal(0, 0.8), 3)), 0), 4)]
    return Subject(
        number=number,
        man=man,
        masculinity=m,
        age=age,
        pictures=int(rng.choice(MAX_PICTURES, p=[0.15, 0.25, 0.26, 0.18, 0.10, 0.06])) + 1,
        tone_group=group,
        skin=scaled(_ramp(_SKIN, tone), free(0.97, 1.03)),
        hair=mix(hair, _HAIR[1], free(0, 0.25)),
        iris=_IRIS[int(rng.integers(2, 6) if light_eyes else rng.integers(0, 2))],
        greying_age=float(rng.normal(55, 8)),
        jaw=squash(z["jaw"]),
        chin=squash(z["chin"]),
        cheek=free(),
        face_length=free(),
        eye_size=squash(-z["eye_size"]),
        eye_tilt=free(),
        eye_spacing=free(),
        brow_weight=squash(z["brow_weight"]),
        brow_height=squash(-z["brow_height"]),
        brow_arch=squash(-z["brow_arch"]),
        nose_width=squash(z["nose_width"] + 2.5 * float(rng.normal())),
        nose_length=free(),
        lip_fullness=squash(-z["lip_fullness"]),
        mouth_width=free(),
        lipstick=max(squash(-z["lipstick"], 2.2) - 0.4, 0) / 0.6,
        lip_tint=_pick(rng, _LIPS, 8),
        eye_makeup=max(squash(-z["eye_makeup"], 2.2) - 0.4, 0) / 0.6,
        beard=(1.0 if unshaven else 0.4) * max(squash(z["beard"] - 0.6, 2.2) - 0.25, 0) / 0.75,
        beard_style=rng.choice(["full", "goatee", "moustache"], p=[0.66, 0.22, 0.12]).item(),
        hair_length=length,
        hair_volume=free(),
        hair_curl=curl,
        hair_parting=free(-0.34, 0.34),
        fringe=length > 0.35 and free() < 0.26,
        tied=length > 0.5 and free() < 0.2,
        recession=squash(z["recession"] - 1.9),
        neck=squash(z["neck"]),
        shoulders=squash(z["shoulders"]),
        glasses="none" if free() > 0.14 + 0.004 * (age - 16) else rng.choice(["round", "square"]).item(),
        frame=_pick(rng, _FRAMES, 8),
        earrings=z["earrings"] < -1.0,
        garment=garment,
        asymmetry=free(-1, 1),
        texture=int(rng.integers(2**31)),
    )


def sample_pictures(seed: int, subject: Subject) -> list[Picture]:
    """The subject's pictures, in order of age."""
    years = _generator(seed, subject.number, MAX_PICTURES + 2).uniform(0, 8)
    return [_sample_picture(seed, subject, number, years) for number in range(subject.pictures)]


def _sample_picture(seed: int, subject: Subject, number: int, years: float) -> Picture:
    """Picture `number` (from 0) of a subject whose pictures span `years`."""
    rng = _generator(seed, subject.number, number + 1)

    def free(low: float = 0.0, high: float = 1.0) -> float:
        return float(rng.uniform(low, high))

    direction, strength = free(-1, 1), free(0.15, 1.0)
    wall = _pick(rng, _WALL)
    busy = free() < 0.3
    return Picture(
        number=number,
        age=min(subject.age + round(years * number / max(subject.pictures - 1, 1)), 77),
        rotation=float(np.clip(rng.normal(0, 0.055), -0.15, 0.15)),
        yaw=float(np.clip(rng.normal(0, 0.42), -1, 1)),
        pitch=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        scale=free(0.285, 0.325),
        centre=(0.5 + float(rng.normal(0, 0.012)), 0.475 + float(rng.normal(0, 0.012))),
        smile=free(-0.25, 1.0),
        mouth_open=max(free(-1.2, 1.0), 0.0),
        gaze=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        beard=free(0.75, 1.15),
        hair=free(0.85, 1.15),
        glasses=free() < 0.8,
        light=(direction * strength, -free(0.1, 0.7)),
        exposure=float(np.clip(rng.normal(1.0, 0.09), 0.75, 1.22)),
        warmth=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        blur=max(free(-0.003, 0.005), 0.0),
        noise=free(0.5, 4.5),
        background=(wall, _pick(rng, _WALL) if busy else scaled(wall, free(0.62, 1.0))),
        busy=busy,
        cloth=_pick(rng, _CLOTH),
        seed=int(rng.integers(2**31)),
    )


def morph_name(subject: Subject, picture: Picture) -> str:
    """Such as 000017_01M46.JPG."""
    return f"{subject.number:06d}_{picture.number:02d}{'M' if subject.man else 'F'}{picture.age}.JPG"


def utkface_name(subject: Subject, picture: Picture) -> str:
    """Such as 46_0_2_20170101000500000.jpg; the time stamp, unique to the picture, is no real moment."""
    moment = datetime(2017, 1, 1) + timedelta(seconds=MAX_PICTURES * subject.number + picture.number)
    return f"{picture.age}_{int(not subject.man)}_{subject.tone_group}_{moment:%Y%m%d%H%M%S}000.jpg"


@dataclass(frozen=True)
class Job:
    """The first `pictures` pictures of subject `subject`."""

    subject: int
    man: bool
    pictures: int


def jobs(seed: int, count: int) -> Iterator[Job]:
    """Jobs that draw `count` pictures together."""
    for number in itertools.count(1):
        subject = sample_subject(seed, number)
        pictures = min(subject.pictures, count)
        yield Job(number, subject.man, pictures)
        count -= pictures
        if not count:
            return
