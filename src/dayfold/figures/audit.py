"""Which labels are probably wrong: confident learning on predictions that are out of sample.

Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021, as
cleanlab implements it. A label is doubted where the model is surer of another class than it usually
is of images of that class, so that a class that is hard for it is not suspected as a whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dayfold import draws

FOLDS = 5


class Doubts(NamedTuple):
    """What is thought of n labels: `score` float64 [n], 0 (surely wrong) .. 1 (surely right).

    `suggested` int64 [n] is the likeliest other class, `doubted` bool [n] whether confident
    learning counts the label as wrong.
    """

    score: NDArray[np.float64]
    suggested: NDArray[np.int64]
    doubted: NDArray[np.bool_]


def folds(labels: NDArray[np.int64], groups: Sequence[str], day: str) -> NDArray[np.int64]:
    """Deal images to FOLDS parts: int64 [n], each class evenly, all images of a group to one part.

    A group counts in the class of its first image. Dealt in the order of a hash of their names.
    """
    names, first, members = np.unique(
        np.asarray(groups, dtype=np.str_), return_index=True, return_inverse=True
    )
    keys = draws.uniforms("audit", day, ids=names.tolist())
    order = np.lexsort((names, keys, labels[first]))
    dealt = np.empty(len(names), dtype=np.int64)
    dealt[order] = np.arange(len(names)) % FOLDS
    return dealt[members.reshape(-1)]


def out_of_sample(
    features: NDArray[np.float32], labels: NDArray[np.int64], fold: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return what a logistic regression says of each image that was fitted on the other folds.

    `features` float32 [n, d], `labels` and `fold` int64 [n] → probabilities float64 [n, classes],
    and bool [n]: whether the image's own class was among the others at all.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chances = np.zeros((len(labels), classes))
    judged = np.zeros(len(labels), dtype=bool)
    for part in np.unique(fold):
        mine, others = fold == part, fold != part
        known = np.unique(labels[others])
        if len(known) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(features[others], labels[others])
        chances[np.ix_(mine, known)] = model.predict_proba(features[mine])
        judged[mine] = np.isin(labels[mine], known)
    return chances, judged


def doubts(chances: NDArray[np.float64], labels: NDArray[np.int64]) -> Doubts:
    """Judge labels, int64 [n], by probabilities that are out of sample, float64 [n, classes].

    The score is the margin of the label over the likeliest other class, each less the mean
    probability of images of that class (cleanlab's adjusted `normalized_margin`).
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    others = chances.copy()
    others[np.arange(len(labels)), labels] = -1
    suggested = others.argmax(axis=1)
    if not len(labels) or chances.shape[1] < 2:
        return Doubts(np.ones(len(labels)), suggested, np.zeros(len(labels), dtype=bool))
    return Doubts(
        get_label_quality_scores(
            labels, chances, method="normalized_margin", adjust_pred_probs=True
        ),
        suggested,
        find_label_issues(labels, chances, filter_by="confident_learning", n_jobs=1),
    )


def ranking(found: Doubts, new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return positions, the most doubtful first: int64 [n].

    Doubted labels come before all others, and among them those of `new` images, bool [n]: with
    these a person has to do with today.
    """
    old = found.doubted & ~new
    return np.lexsort((found.score, old, ~found.doubted)).astype(np.int64)
