"""The child process that decodes.

It takes one request a line on standard input and answers each with a line, both JSON (workers.py
is the other end). It must start fast: nothing here imports more than Pillow and NumPy.
"""

import json
import os
import resource
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dayfold.errors import IntakeError
from dayfold.ledger.decode import ENDINGS, IMAGE_ENDINGS, examine, squared
from dayfold.ledger.intake import archives
from dayfold.ledger.kept import Kept, keep_square
from dayfold.project.files import escaped, sha256, write_bytes

MAX_BYTES = 2**29  # of a file: half a gigabyte
MIN_SIDE_PX = 8  # of an image
_PIXEL_BYTES = 40  # at most, while a pixel of any format is decoded and converted
_ROOM = 2**28  # for what else a decoder needs
_PLAIN = 8  # grey levels: an image whose cells differ by less looks like nothing


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Read a file once: hash it, decode it, look at it, and put a copy into `stage` if asked.

    The request has `path`, `stage` ("" for none), `max_pixels`, `real` where its bytes lie
    elsewhere, and `squares`, a folder, where the image's square of `size` is to be kept. The answer
    has the file's `image` (sha256) where it could be read, and either `refused`, the reason, or
    `look`, `group` and `warnings`. `failed` says that the copy could not be written.
    """
    answer: dict[str, Any] = {"image": ""}
    try:
        data = _read(Path(request.get("real") or request["path"]))
        answer["image"] = sha256(data)
        found = examine(data, max_pixels=request["max_pixels"])
        image = found.image
        if min(image.size) < MIN_SIDE_PX:
            raise IntakeError(
                f"is too small: {image.width} x {image.height} px, a side must have {MIN_SIDE_PX}"
            )
        warned = ["has several frames; the first one is taken"] * found.has_frames
        ending = Path(request["path"]).suffix.lower()
        if ending in IMAGE_ENDINGS and ending not in ENDINGS[found.form]:
            warned.append(f"is {found.form} in spite of its ending {ending}; taken as {found.form}")
        if request.get("squares"):
            square = squared(image, request["size"])
            keep_square(Kept(Path(request["squares"])), answer["image"], square)
        answer |= {"look": look(image), "group": found.group, "warnings": [*warned, *found.remarks]}
    except IntakeError as error:
        return {**answer, "refused": error.what}
    except OSError as error:
        return {**answer, "refused": f"cannot be read ({error.strerror or error})"}
    if request["stage"]:
        try:
            staged = Path(request["stage"]) / answer["image"]
            # Another worker may be writing the very same bytes.
            own = staged.with_name(f"{staged.name}-{os.getpid()}")
            write_bytes(own, data)
            own.replace(staged)
        except OSError as error:
            return {**answer, "failed": f"{request['stage']}: {error.strerror or error}"}
    return answer


def look(image: Image.Image) -> str:
    """Return a difference hash as 32 hexadecimal digits, or nothing of a plain image.

    The image's brightness on a 9 x 9 grid; a bit each says whether a cell is darker than its right
    or its lower neighbour (dHash, N. Krawetz, "Kind of like that", 2013; both directions halve
    what it mistakes). Scaling, recompression, brightness and contrast leave most bits as they are.
    """
    small = image.convert("L").resize((9, 9), Image.Resampling.BOX)
    cells = np.asarray(small, dtype=np.int16)
    if np.ptp(cells) < _PLAIN:
        return ""
    here, right, below = cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1]
    return np.packbits([right > here, below > here]).tobytes().hex()


def unpack(request: dict[str, Any]) -> dict[str, Any]:
    """Unpack the archive `unpack` into `into`; answer what is `refused`, or an error's words."""
    archive, into = Path(request["unpack"]), Path(request["into"])
    try:
        return {"refused": archives.unpack(archive, into)}
    except IntakeError as error:
        return {"what": error.what, "problems": error.problems, "hint": error.hint}
    except OSError as error:
        return {"what": f"{archive} cannot be unpacked: {error.strerror or error}."}
    except MemoryError:
        return {"what": f"{archive} needs more memory than an archive may."}


def parquet(request: dict[str, Any]) -> dict[str, Any]:
    """Answer the `rows` of the Parquet file `parquet`, and the `names` of their columns.

    Those of text and of whole numbers. Of a damaged file polars panics at length, or worse.
    """
    os.environ["POLARS_MAX_THREADS"] = "1"
    import polars as pl  # here: it takes long, and no image needs it

    path = request["parquet"]
    try:
        texts = (pl.String, pl.Categorical, pl.Enum)
        schema = pl.read_parquet_schema(path).items()
        names = [name for name, kind in schema if kind in texts or kind.is_integer()]
        return {"names": names, "rows": pl.read_parquet(path, columns=names).rows()}
    except (pl.exceptions.PolarsError, ValueError, OSError) as error:
        said = escaped(str(error).partition("\n")[0][:200])
        return {"what": f"{path} cannot be read as Parquet: {said}.", "hint": "write it again"}


def _read(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or link that took its place meanwhile is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IntakeError("is not a file (expected <class>/<image>)")
        if status.st_size > MAX_BYTES:
            raise IntakeError(f"is larger than {MAX_BYTES // 2**20} MiB")
        # One more: it may be growing.
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise IntakeError(f"is larger than {MAX_BYTES // 2**20} MiB")
    return data


def _limit_memory(base: int, max_pixels: int) -> None:
    """Let the process have this much above what it has from the start (Linux keeps to it)."""
    most = base + max_pixels * _PIXEL_BYTES + 2 * MAX_BYTES + _ROOM
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (ValueError, OSError):  # macOS refuses; the limit of pixels holds there too
        return


def _own_size() -> int:
    """The address space of this process in bytes, where /proc tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def main() -> None:
    """Answer requests until standard input ends, as it does when the parent dies."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    # What a decoder's library prints must not come between the answers, nor on the terminal.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    Image.init()
    base = _own_size()
    for line in sys.stdin:
        request = json.loads(line)
        _limit_memory(base, request.get("max_pixels", 0))
        kind = {"unpack": unpack, "parquet": parquet}.get(next(iter(request)), check)
        answer = kind(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
