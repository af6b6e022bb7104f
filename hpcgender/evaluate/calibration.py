"""Whether probabilities are true: the reliability curve, its expected error, and temperature scaling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcgender.evaluate.predictions import Floats, Labels, Mask, sigmoid
from hpcgender.evaluate.results import Bin, Calibration

BINS = 15
"""As Guo et al. have."""
EDGES = np.arange(BINS + 1) / BINS
LIMITS = (1e-4, 1e4)
"""Between them a temperature is looked for: beyond, no finite one is best."""


def calibration(logit: npt.NDArray[np.floating], male: Mask) -> Calibration:
    """The calibration of log-odds (n,) of images that are male or not, with 15 bins of equal width.

    Bins are of the probability of male, as scikit-learn's calibration_curve has them; they are weighted as in the
    expected calibration error of Guo et al. (ICML 2017), whose bins are of the larger probability of both classes.
    """
    probability = sigmoid(logit)
    place = bins_of(probability, EDGES)
    images = np.bincount(place, minlength=BINS)
    bins = []
    for number, count in enumerate(images.tolist()):
        inside = place == number
        mean = float(probability[inside].mean()) if count else float("nan")
        part = float(male[inside].mean()) if count else float("nan")
        low, high = EDGES[number : number + 2].tolist()
        bins.append(Bin(low=low, high=high, images=count, probability=mean, male=part))
    ece = float(excesses(logit, male).mean())
    return Calibration(log_loss=float(losses(logit, male).mean()), ece=ece, bins=tuple(bins))


def excesses(logit: npt.NDArray[np.floating], male: Mask) -> Floats:
    """How far the probability of male exceeds the label of each image, (n,), or falls short where its bin does so.

    Their mean is the expected calibration error, so its interval is that of a mean. The error of a network that is well
    calibrated is overestimated: chance alone makes the bins differ a little.
    """
    probability = sigmoid(logit)
    place = bins_of(probability, EDGES)
    excess = probability - male
    result: Floats = excess * np.sign(np.bincount(place, excess, minlength=BINS))[place]
    return result


def bins_of(values: Floats, edges: Floats) -> Labels:
    """The bin of each value between ascending edges, from 0: [low, high), and the last one up to its end, (n,)."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def losses(logit: npt.NDArray[np.floating], male: Mask) -> Floats:
    """The negative log-likelihood of each label, nats: log(1 + exp(-z)) of men, log(1 + exp(z)) of women."""
    result: Floats = np.logaddexp(0, np.where(male, -1.0, 1.0) * logit.astype(np.float64))
    return result


def fit_temperature(logit: npt.NDArray[np.floating], male: Mask) -> float | None:
    """The temperature that makes the mean log loss of `logit / temperature` least, or None if no finite one does.

    That is so if all images are classified correctly, and if swapping the two classes would make the loss less. The
    loss is convex in 1 / temperature, so the zero of its slope is found to the last digits.
    """
    from scipy.optimize import brentq  # 0.3 s, only where a temperature is fitted

    z = logit.astype(np.float64)

    def slope(inverse: float) -> float:
        return float(((sigmoid(inverse * z) - male) * z).mean())

    low, high = 1 / LIMITS[1], 1 / LIMITS[0]
    if not len(z) or slope(low) >= 0 or slope(high) <= 0:
        return None
    return 1 / float(brentq(slope, low, high, xtol=1e-18, rtol=4 * np.finfo(float).eps, maxiter=1000))
