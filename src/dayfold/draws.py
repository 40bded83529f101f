"""Stateless randomness: hashes of purpose, scope and id.

There is no generator with a state, so no draw depends on row order, worker count or earlier draws.
All arithmetic is on integers or single IEEE divisions, so the results have the same bits on every
machine (level A of reproducibility).
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Scope = str | int


def _keyed(purpose: str, scope: Sequence[Scope]) -> "hashlib._Hash":
    # The length of each part keeps them apart.
    parts = (str(part).encode() for part in (purpose, *scope))
    return hashlib.sha256(b"".join(b"%d:" % len(text) + text for text in parts))


def _digests(purpose: str, scope: Sequence[Scope], ids: Sequence[str]) -> bytes:
    prefix, digests = _keyed(purpose, scope), []
    prefix.update(b":")  # no length begins with a colon
    copy = prefix.copy  # saves an attribute lookup for each of a million ids
    for name in ids:
        hasher = copy()
        hasher.update(name.encode())
        digests.append(hasher.digest())
    return b"".join(digests)


def uniforms(purpose: str, *scope: Scope, ids: Sequence[str]) -> NDArray[np.float64]:
    """Draw from U(0, 1) for each id: float64 [len(ids)], never 0 or 1, with 52 random bits."""
    words = np.frombuffer(_digests(purpose, scope, ids), dtype=">u8").reshape(-1, 4)[:, 0]
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def uniform_fields(purpose: str, *scope: Scope, ids: Sequence[str]) -> NDArray[np.float64]:
    """Draw eight times from U(0, 1) for each id: float64 [len(ids), 8], 32 random bits each."""
    words = np.frombuffer(_digests(purpose, scope, ids), dtype=">u4").reshape(-1, 8)
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def uniform_array(purpose: str, *scope: Scope, shape: Sequence[int]) -> NDArray[np.float32]:
    """Draw an array from U(-1, 1): float32 [*shape], 24 random bits each (for new weights)."""
    count = int(np.prod(shape))
    stream = hashlib.shake_256(_keyed(purpose, scope).digest()).digest(4 * count)
    words = np.frombuffer(stream, dtype=">u4") >> np.uint32(8)
    return ((words.astype(np.float32) - 2.0**23) * np.float32(2.0**-23)).reshape(shape)


def priority_sample(
    ids: Sequence[str], weights: Sequence[float], size: int, purpose: str, *scope: Scope
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sample `size` ids without replacement, heavier ones more often.

    Takes the `size` smallest keys u / weight, ties by id (priority sampling: Duffield, Lund &
    Thorup, "Priority sampling for estimation of arbitrary subset sums", J. ACM 2007).

    Returns the chosen positions in order of selection, int64 [min(size, len(ids))], and their
    keys, float64. With equal weights every id is chosen with probability size / len(ids).
    """
    keys = uniforms(purpose, *scope, ids=ids) / np.asarray(weights, dtype=np.float64)
    order = argsort(keys, ids)[: max(size, 0)]
    return order, keys[order]


def argsort(keys: NDArray[np.float64], ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions that sort keys, float64 [n], and ties by id: int64 [n].

    np.lexsort((ids, keys)) gives the same, but sorts a million ids of 64 letters for a few ties.
    """
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    ties = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(ties):
        tied = np.union1d(ties, ties + 1)
        names = np.asarray([ids[int(position)] for position in order[tied]], dtype=np.str_)
        order[tied] = order[tied][np.lexsort((names, ranked[tied]))]
    return order


def even_level(available: Sequence[int], size: int) -> Fraction:
    """Return the level L at which sum(min(n, L) for n in available) == size, or the largest n.

    It divides a budget evenly: a class with fewer than L gives all, every other class gives L.
    """
    left, level = Fraction(min(size, sum(available))), Fraction(0)
    for rank, count in enumerate(sorted(available)):
        sharing = len(available) - rank
        if (count - level) * sharing >= left:
            return level + left / sharing
        left -= (count - level) * sharing
        level = Fraction(count)
    return level


def even_seats(available: dict[str, int], size: int, purpose: str, *scope: Scope) -> dict[str, int]:
    """Return how many of `size` images each class gets: min(n, L), fractions rounded by a draw.

    The expected number of a class is exactly min(n, even_level(...)).
    """
    level = even_level(list(available.values()), size)
    seats = {name: min(count, int(level)) for name, count in available.items()}
    open_seats = min(size, sum(available.values())) - sum(seats.values())
    wanting = sorted(name for name, count in available.items() if count > seats[name])
    chosen, _ = priority_sample(wanting, [1.0] * len(wanting), open_seats, purpose, *scope)
    for position in chosen:
        seats[wanting[position]] += 1
    return seats


def systematic_counts(weights: Sequence[float], draws: int, start: float) -> list[int]:
    """Return how often systematic sampling with a random start in [0, 1) draws each item.

    The expected count of item i is draws * weights[i] / sum(weights), and every count is less than
    one off it. The arithmetic is exact, on the fractions that the floats stand for.
    """
    fractions = [Fraction(weight) for weight in weights]
    # Denominators of floats are powers of two, so the largest is a common one.
    scale = max((fraction.denominator for fraction in fractions), default=1)
    integers = [int(fraction * scale) for fraction in fractions]
    total = sum(integers)
    offset = int(Fraction(start) * total)
    marks = [(draws * reached + offset) // total for reached in accumulate(integers)]
    return [mark - before for mark, before in zip(marks, [0, *marks], strict=False)]


def epoch_order(
    ids: Sequence[str], weights: Sequence[float], draws: int, seed: int, day: str, epoch: int
) -> NDArray[np.int64]:
    """Draw the images of an epoch by weight: int64 [draws], positions in `ids`, in order.

    The images come from systematic sampling over the ids, sorted by weight and then randomly, so
    that the total of all images of one weight is less than one draw off its share too. Their order
    is a draw for each (image, number of earlier occurrences). Neither depends on the order of
    `ids`.
    """
    names = np.asarray(ids, dtype=np.str_)
    masses = np.asarray(weights, dtype=np.float64)
    line = np.lexsort((names, uniforms("line", seed, day, epoch, ids=ids), masses))
    start = float(uniforms("start", seed, day, ids=[str(epoch)])[0])
    counts = systematic_counts([weights[position] for position in line], draws, start)
    chosen = np.repeat(line, counts)
    copies = np.concatenate([np.arange(count) for count in counts]) if len(ids) else chosen
    tickets = [f"{name} {copy}" for name, copy in zip(names[chosen], copies, strict=True)]
    order = argsort(uniforms("order", seed, day, epoch, ids=tickets), tickets)
    return chosen[order].astype(np.int64)
