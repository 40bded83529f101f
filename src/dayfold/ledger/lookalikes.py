"""Near duplicates: how an image looks, in 128 bits, and which images look alike."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 8  # comparisons a row and column: 8 x 8 with the right, 8 x 8 with the lower neighbour
BITS = 2 * GRID * GRID
NEAR_BITS = 4  # at most, that differ between images called near duplicates
_PLAIN = 8  # grey levels: an image whose cells differ by less looks like nothing
_AT_ONCE = 2**22  # comparisons of a block: 64 MB


def look(image: Image.Image) -> str:
    """Return a difference hash as 32 hexadecimal digits, or nothing of a plain image.

    The image's brightness on a 9 x 9 grid; a bit each says whether a cell is darker than its right
    or its lower neighbour (dHash, N. Krawetz, "Kind of like that", 2013; both directions halve
    what it mistakes). Scaling, recompression, brightness and contrast leave most bits as they are.
    """
    side = GRID + 1
    small = image.convert("L").resize((side, side), Image.Resampling.BOX)
    cells = np.asarray(small, dtype=np.int16)
    if np.ptp(cells) < _PLAIN:
        return ""
    right = cells[:GRID, 1:] > cells[:GRID, :-1]
    below = cells[1:, :GRID] > cells[:-1, :GRID]
    return np.packbits(np.concatenate([right.ravel(), below.ravel()])).tobytes().hex()


def nearest(
    looks: Sequence[str],
    kinds: Sequence[int],
    others: Sequence[str],
    other_kinds: Sequence[int],
    *,
    within: int = NEAR_BITS,
) -> list[tuple[int, int, int]]:
    """Return (position, other's position, bits that differ) of each look that has a near one.

    That is the nearest of the others of another kind, the first of several; at most `within` bits
    may differ. Empty looks are near to none.
    """
    mine, a = _words(looks)
    its, b = _words(others)
    kind, other_kind = np.asarray(kinds, dtype=np.int64), np.asarray(other_kinds, dtype=np.int64)
    found: list[tuple[int, int, int]] = []
    for block, far in _distances(a, b):
        far[kind[mine[block], None] == other_kind[None, its]] = BITS + 1
        best = far.argmin(axis=1)
        for row in np.flatnonzero(far.min(axis=1) <= within):
            column = best[row]
            found.append((int(mine[block][row]), int(its[column]), int(far[row, column])))
    return found


def near(
    looks: Sequence[str], others: Sequence[str], *, within: int = NEAR_BITS
) -> NDArray[np.bool_]:
    """Return which of the others are near to any of the looks, whatever their kind: bool [n]."""
    its, b = _words(others)
    found = np.zeros(len(others), dtype=np.bool_)
    for _, far in _distances(_words(looks)[1], b):
        found[its] |= (far <= within).any(axis=0)
    return found


def _words(looks: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The positions of the looks that are not empty, and these as two words each: uint64 [n, 2]."""
    lengths = np.fromiter(map(len, looks), dtype=np.int64, count=len(looks))
    words = np.frombuffer(bytes.fromhex("".join(looks)), dtype=">u8").reshape(-1, 2)
    return np.flatnonzero(lengths), words.astype(np.uint64)


def _distances(
    a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Blocks of rows of `a`, and the bits in which each differs from each of `b`: uint8 [m, n]."""
    step = max(1, _AT_ONCE // max(1, len(b)))
    for start in range(0, len(a) if len(b) else 0, step):
        block = slice(start, start + step)
        far = np.bitwise_count(a[block, None, 0] ^ b[None, :, 0])
        far += np.bitwise_count(a[block, None, 1] ^ b[None, :, 1])
        yield block, far
