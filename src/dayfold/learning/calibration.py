"""How sure an answer is: one temperature a model, by which its softmax is made honest."""

import numpy as np
from numpy.typing import NDArray

from dayfold.project.console import plural

LEAST_IMAGES, LEAST_WRONG = 30, 3  # of validation, for a temperature to rest on
STEPS = 60  # halvings of the range that is searched: beyond the last bit of a float


def lacking(images: int, wrong: int) -> str:
    """Return why no temperature can be fitted on so many validation images; or nothing.

    A model that is hardly ever wrong on few images shows how sure it may be only at one end. What
    earlier models made of theirs cannot be pooled: predictions.csv holds no logits.
    """
    if images < LEAST_IMAGES:
        return plural(images, "validation image")
    if wrong < LEAST_WRONG:
        return f"{wrong} wrong of {images} validation images; {LEAST_WRONG} are needed"
    return ""


def temperature(logits: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return T, for which softmax(logits / T) is as sure as it is right; in 0.05..20.

    `logits` float64 [n, classes] of images that the model never learnt from, `targets` int64 [n].
    The T of the least cross-entropy (temperature scaling: Guo et al., "On calibration of modern
    neural networks", 2017), which changes no answer, only how sure it is. Of n images the label
    counts as (n + 1) / (n + 2) and the rest as the other classes (Platt 1999): a model that is
    right on all of thirty images is not taken for infallible. Rounded to 4 digits. 1 where there
    is nothing to fit: no image, or one class.
    """
    images, classes = logits.shape
    if not images or classes < 2:
        return 1.0
    wanted = np.full((images, classes), 1 / (images + 2) / (classes - 1))
    wanted[np.arange(images), targets] = (images + 1) / (images + 2)
    aim = (wanted * logits).sum()
    # In 1 / T the cross-entropy is convex: its slope has one zero, found by halving.
    low, high = np.log(1 / 20), np.log(20)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if (calibrated(logits, np.exp(-middle)) * logits).sum() < aim:
            low = middle
        else:
            high = middle
    return round(float(np.exp(-(low + high) / 2)), 4)


def calibrated(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return softmax(logits / temperature), float64 [n, classes]."""
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled
