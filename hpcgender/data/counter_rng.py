"""Random numbers as a pure function of (seed, epoch, purpose, counter): the same on every machine and numpy version.

SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), seeded with a hash of the
key; any counter is evaluated directly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(bits: Bits) -> Bits:
    """SplitMix64's output function, elementwise."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@lru_cache(maxsize=256)
def stream(seed: int, epoch: int, purpose: str) -> Bits:
    """The hash of a key, uint64 (1,). Cached, as every batch of an epoch needs it."""
    words = [seed & 0xFFFFFFFFFFFFFFFF, epoch, *purpose.encode()]
    key = np.zeros(1, dtype=np.uint64)
    for word in words:
        key = mix(key + GOLDEN + np.uint64(word))
    return key


def random_bits(seed: int, epoch: int, purpose: str, counter: npt.NDArray[np.integer]) -> Bits:
    """64 random bits per counter, uint64 of the counter's shape."""
    return mix(stream(seed, epoch, purpose) + (counter.astype(np.uint64) + np.uint64(1)) * GOLDEN)


def uniform(seed: int, epoch: int, purpose: str, counter: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """A random number in [0, 1) per counter, float64 of the counter's shape."""
    return (random_bits(seed, epoch, purpose, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, purpose: str, count: int) -> npt.NDArray[np.int64]:
    """A permutation of range(count), int64 of shape (count,)."""
    return np.argsort(random_bits(seed, epoch, purpose, np.arange(count)), kind="stable")
