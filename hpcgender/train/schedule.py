"""The learning rate as a pure function of the step. Imports no torch."""

from __future__ import annotations

import math

from hpcgender.commands.train import TrainConfig

ONE_CYCLE_START = 25.0
"""The peak learning rate divided by the first one of onecycle, as in torch's OneCycleLR."""
ONE_CYCLE_END = 1e4
"""The first learning rate of onecycle divided by the last one."""


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0 at the start of training.

    `cosine`: arXiv 1608.03983 without restarts. `onecycle`: arXiv 1708.07120, with half cosines as in torch's
    OneCycleLR; its rising half is the warm-up, and momentum is constant. `step` and `cosine` have a linear warm-up
    (arXiv 1706.02677).
    """
    warmup = config.warmup * steps_per_epoch
    epoch = step / steps_per_epoch
    if config.schedule == "onecycle":
        return one_cycle(config.peak_lr, step, warmup, config.epochs * steps_per_epoch)
    if step < warmup:
        return config.peak_lr * (step + 1) / math.ceil(warmup)
    if config.schedule == "step":
        return config.peak_lr * config.decay_factor ** (int(epoch) // config.decay_every)
    left = (config.epochs - epoch) / max(config.epochs - config.warmup, 1e-9)
    return half_cosine(0.0, config.peak_lr, left)


def one_cycle(peak: float, step: int, warmup: float, steps: int) -> float:
    """From peak / 25 up to `peak` at the last of `warmup` steps, then down to peak / 250,000 at the last of `steps`."""
    begin, top = peak / ONE_CYCLE_START, warmup - 1
    if step < top:
        return half_cosine(begin, peak, step / top)
    return half_cosine(peak, begin / ONE_CYCLE_END, (step - top) / max(steps - 1 - top, 1.0))


def half_cosine(start: float, end: float, fraction: float) -> float:
    """Half a cosine from `start` at fraction 0 to `end` at fraction 1."""
    return start + (end - start) * (1 - math.cos(math.pi * fraction)) / 2
