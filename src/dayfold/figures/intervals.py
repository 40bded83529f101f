"""95% intervals and a paired test, from counts.

They assume independent images. With several images of a patient the true intervals are wider.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z = 1.959963984540054  # the standard normal's 97.5% quantile: intervals of 95%
SIGNIFICANT = 0.05

Ends = dict[str, float | None]  # one interval as in metrics.json: low, high
UNKNOWN: Ends = {"low": None, "high": None}


def figure(value: float | None) -> str:
    """Return a figure with three decimals; a dash where it is undefined."""
    return "-" if value is None else f"{value:z.3f}"


def as_text(ends: Ends | None) -> str:
    """Return an interval as "0.954 to 0.998", or "" where it is undefined."""
    if not ends or ends["low"] is None:
        return ""
    return f"{figure(ends['low'])} to {figure(ends['high'])}"


class Interval(NamedTuple):
    """The two ends of 95% intervals, float64; NaN if there was nothing to count."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def wilson(hits: ArrayLike, images: ArrayLike) -> Interval:
    """Return the score interval of each proportion hits / images (Wilson 1927), within 0..1.

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z sqrt(p(1-p)/n) it is neither
    empty at 0 and 1 nor too narrow with few images (Brown, Cai & DasGupta 2001).
    """
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(images, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (k + Z**2 / 2) / (n + Z**2)
        half = Z / (n + Z**2) * np.sqrt(k * (n - k) / n + Z**2 / 4)
        # At 0 and n hits the ends are 0 and 1, which rounding would miss by a bit.
        low = np.where(k == 0, 0.0, np.maximum(middle - half, 0.0))
        high = np.where(k == n, 1.0, np.minimum(middle + half, 1.0))
    return Interval(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan))


def f1(true_positives: ArrayLike, concerned: ArrayLike) -> Interval:
    """Return the interval of each F1 = 2 TP / (2 TP + FP + FN), within 0..1.

    `concerned` counts the images of the class and those predicted as it, TP + FP + FN. F1 is not a
    proportion, but the Jaccard index J = TP / (TP + FP + FN) is, and F1 = 2J / (1 + J) rises with
    J. So the ends are those of J's Wilson interval, transformed; `concerned` is taken as fixed.
    """
    low, high = wilson(true_positives, concerned)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high))


def linear(weights: ArrayLike, values: ArrayLike, lows: ArrayLike, highs: ArrayLike) -> Ends:
    """Return the interval of sum w v from those of independent v (MOVER, Zou & Donner 2008).

    low = sum w v - sqrt(sum (w (v - end))²), where `end` is v's low end for w > 0 and its high end
    for w < 0; high is the other way round. For Wilson intervals and the weights 1 and -1 this is
    Newcombe's interval of a difference (1998), for other weights that of Zou, Huang & Zhang (2009).
    Unknown where there is no v.
    """
    w, v, low, high = (np.asarray(x, dtype=np.float64) for x in (weights, values, lows, highs))
    if not v.size:
        return UNKNOWN
    below, above = w * (v - np.where(w > 0, low, high)), w * (np.where(w > 0, high, low) - v)
    total = np.sum(w * v)
    return {
        "low": float(total - np.sqrt(np.sum(below**2))),
        "high": float(total + np.sqrt(np.sum(above**2))),
    }


def proportion(hits: int, images: int) -> Ends:
    """Return the Wilson interval of one proportion; unknown without images."""
    if not images:
        return UNKNOWN
    low, high = wilson(hits, images)
    return {"low": float(low), "high": float(high)}


def p_text(p: float) -> str:
    """Return "p = 0.027" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def mcnemar(worse: int, better: int) -> float:
    """Return the two-sided exact mid-p of McNemar's test, in 0..1.

    `worse` counts the images that went from right to wrong, `better` those from wrong to right.
    With n = worse + better and m the smaller one: p = (2 sum_{k<m} C(n, k) + C(n, m)) / 2^n. The
    mid-p counts half of the observed outcome, as Fagerland, Lydersen & Laake (2013) advise:
    otherwise the test is too conservative. Even so it hardly ever exceeds its level.
    """
    flips, fewer = worse + better, min(worse, better)
    tail, binomial = 0, 1  # sum C(n, k) and C(n, k), as exact integers
    for k in range(fewer):
        tail += binomial
        binomial = binomial * (flips - k) // (k + 1)
    return (2 * tail + binomial) / (1 << flips)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the order given (Holm 1979).

    The k-th smallest of n is multiplied by n - k + 1, cut at 1, and raised to those before it. So
    the probability of any false alarm among the n is at most the level.
    """
    found, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        least = max(least, min(1.0, ps[place] * (len(ps) - rank)))
        found[place] = least
    return found
