"""Near duplicates: how an image looks, in 128 bits, and which images look alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 8  # comparisons a row and column: 8 x 8 with the right, 8 x 8 with the lower neighbour
BITS = 2 * GRID * GRID
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
    within: int,
) -> list[tuple[int, int, int]]:
    """Return (position, other's position, bits that differ) of each look that has a near one.

    That is the nearest of the others of another kind, the first of several; at most `within` bits
    may differ. Empty looks are near to none.
    """
    a, b = _words(looks), _words(others)
    mine, its = _there(looks), _there(others)
    kind, other_kind = np.asarray(kinds, dtype=np.int64), np.asarray(other_kinds, dtype=np.int64)
    found: list[tuple[int, int, int]] = []
    if not len(its):
        return found
    step = max(1, _AT_ONCE // len(its))
    for start in range(0, len(mine), step):
        block = mine[start : start + step]
        far = np.bitwise_count(a[block, None, 0] ^ b[None, its, 0])
        far += np.bitwise_count(a[block, None, 1] ^ b[None, its, 1])
        far[kind[block, None] == other_kind[None, its]] = BITS + 1
        best = far.argmin(axis=1)
        for row in np.flatnonzero(far.min(axis=1) <= within):
            column = best[row]
            found.append((int(block[row]), int(its[column]), int(far[row, column])))
    return found


def _there(looks: Sequence[str]) -> NDArray[np.int64]:
    """The positions of the looks that are not empty."""
    return np.flatnonzero([bool(one) for one in looks]).astype(np.int64)


def _words(looks: Sequence[str]) -> NDArray[np.uint64]:
    """Looks as two words each: uint64 [n, 2]."""
    joined = "".join(one or "0" * (BITS // 4) for one in looks)
    return np.frombuffer(bytes.fromhex(joined), dtype=">u8").reshape(-1, 2).astype(np.uint64)
