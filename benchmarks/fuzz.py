"""Mutated files against intake: no traceback, no hang, bounded memory, nothing lost or half-done.

    python benchmarks/fuzz.py [images] [texts] [seed]

Gives `add` that many images of every format (20,000 by default), each a good file with bytes
flipped, cut, copied, joined with another's or set to odd numbers, in deliveries of 250; and that
many params.yaml and files of corrections, archives, and files of labels (5,000 by default; those of
tests/test_adding_labels.py, of every tool). Prints a line a kind and fails at the first thing that
must not be: see the functions.
"""

import io
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import RLELossless

from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.errors import DayfoldError, IntakeError
from dayfold.ledger import manifest
from dayfold.ledger.intake import workers
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.project.layout import Project
from dayfold.stages import snapshot

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import tools
from builders import DAYS, contents, encoded, make_project, open_day, place
from test_archives import tarred, zipped
from test_dicom import scan, written

DAY, NEXT = DAYS[:2]
DELIVERY = 250  # files
SECONDS = 5.0  # that one file may take
MEBIBYTES = 2048  # that a worker may have, at most


def pictures() -> dict[str, bytes]:
    """Small good files of every format and mode that is taken, by name with its ending."""
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (24, 32, 4), dtype=np.uint8)
    colour, alpha = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    grey = colour.convert("L")
    deep = Image.fromarray(draw.integers(0, 65536, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6

    def several(form: str) -> bytes:
        return encoded(colour, form, save_all=True, append_images=[colour.rotate(180)])

    made = {
        "rgb.png": encoded(colour, "PNG", exif=exif.tobytes()),
        "rgba.png": encoded(alpha, "PNG"),
        "grey-16.png": encoded(deep, "PNG"),
        "palette.png": encoded(colour.quantize(16), "PNG", transparency=3),
        "one-bit.png": encoded(grey.convert("1"), "PNG"),
        "animated.png": several("PNG"),
        "rgb.jpg": encoded(colour, "JPEG", exif=exif.tobytes()),
        "progressive.jpg": encoded(colour, "JPEG", progressive=True),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "phone.jpg": several("MPO"),
        "rgb.bmp": encoded(colour, "BMP"),
        "palette.bmp": encoded(colour.quantize(16), "BMP"),
        "animated.gif": several("GIF"),
        "lossy.webp": encoded(colour, "WEBP"),
        "lossless.webp": encoded(alpha, "WEBP", lossless=True),
        "animated.webp": several("WEBP"),
        "deep.tif": encoded(deep, "TIFF"),
        "several.tif": several("TIFF"),
    }
    for form in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        made[f"{form}.tif"] = encoded(colour, "TIFF", compression=form)
    return made | dicoms(noise)


def dicoms(noise: np.ndarray) -> dict[str, bytes]:
    """DICOM files: grey with a window, RGB of several frames, the same compressed."""
    tags = {"PatientID": "P1", "StudyInstanceUID": "1.2.3.4"}
    grey = scan(noise[..., 0], WindowCenter=100, WindowWidth=90, **tags)
    found = {}
    for name, data in (("grey", grey), ("rgb", scan([noise[..., :3]] * 3, "RGB", **tags))):
        packed = pydicom.dcmread(io.BytesIO(data))
        packed.compress(RLELossless)
        found |= {f"{name}-plain.dcm": data, f"{name}-rle.dcm": written(packed)}
    return found


def mutated(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """A file with one to four things done to it."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        start = draw.randrange(len(found) + 1)
        # Headers are short: half of the changes go there.
        start = min(start, draw.randrange(200)) if draw.random() < 0.5 else start
        length = draw.choice((1, 1, 2, 4, 16, 300))
        piece = found[start : start + length]
        match draw.randrange(8):
            case 0:
                if start < len(found):
                    found[start] ^= 1 << draw.randrange(8)
            case 1:
                found[start : start + length] = draw.randbytes(len(piece))
            case 2:
                del found[start:]
            case 3:
                del found[start : start + length]
            case 4:
                found[start:start] = piece * draw.choice((1, 50))
            case 5:
                other = draw.choice(others)
                found[start:] = other[min(start, len(other)) :]
            case 6:
                odd = draw.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**5))
                order = draw.choice(("big", "little"))
                found[start : start + 4] = odd.to_bytes(4, order)
            case 7:
                found[start:start] = draw.choice(others)[: draw.randrange(400)]
    return bytes(found)


def opened(root: Path) -> Project:
    """A project under git whose first day is open."""
    project = make_project(root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    open_day(project, DAY)
    return project


def tree(folder: Path) -> dict[str, str]:
    """What a folder holds: the sha256 of every file, by path; git's and DVC's own left out."""
    return {path: sha256(data) for path, data in contents(folder).items()}


def fuzz_images(top: Path, count: int, seed: int) -> Counter[str]:
    """Add `count` mutated images, and hold each delivery to what must be.

    Every file is added, known or refused, and none is lost: the source is as it was, the day's
    folder has exactly the bytes of what was added, data/rejected/ lists what was refused. With
    --strict or where all is refused, the project is as it was. No file takes more than SECONDS,
    and no worker more than MEBIBYTES.
    """
    draw, good, outcomes = random.Random(seed), pictures(), Counter[str]()  # noqa: S311
    project, reasons, slowest, most = opened(top / "project"), Counter[str](), 0.0, 0.0
    for start in range(0, count, DELIVERY):
        source = top / f"delivery-{start}"
        (source / "cat").mkdir(parents=True)
        for number in range(start, min(count, start + DELIVERY)):
            name = draw.choice(list(good))
            path = source / "cat" / f"{number}-{name}"
            path.write_bytes(mutated(good[name], list(good.values()), draw))
        given, before, began = tree(source), tree(project.root), time.monotonic()
        options = Options(strict=start > 0 and draw.random() < 0.1)
        with patch.object(workers, "SECONDS", SECONDS):
            outcome, refused = delivered(project, source, options, given, before)
        outcomes += outcome
        reasons.update(refused)
        slowest = max(slowest, (time.monotonic() - began) / len(given))
        most = max([most, *map(peak, [one.process.pid for one in workers._idle])])
        check(tree(source) == given, "a given file changed")
        check(most < MEBIBYTES, f"a worker had {most:.0f} MiB")
        shutil.rmtree(source)
    hangs = sum(number for reason, number in reasons.items() if reason.startswith("takes longer"))
    check(not hangs, f"{hangs} files took longer than {SECONDS} s")
    print(f"images: {dict(outcomes)}")
    print(f"  slowest delivery {slowest * 1000:.0f} ms a file; a worker had {most:.0f} MiB at most")
    for reason, number in reasons.most_common(8):
        print(f"  {number:6} {reason}")
    # What came in must be a day like any other.
    quietly(lambda: snapshot.run(project, params_file.read(project.params)))
    return outcomes


def delivered(
    project: Project, source: Path, options: Options, given: dict[str, str], before: dict[str, str]
) -> tuple[Counter[str], list[str]]:
    """Add a delivery, check what it came to, and count that; why files were refused."""
    try:
        delivery = adding.add(project, source, day=DAY, options=options)
    except IntakeError as error:
        check(bool(error.problems), "a refused delivery names no file")
        check(images(tree(project.root)) == images(before), "a refused delivery left something")
        return Counter({"files in deliveries refused whole": len(given)}), []
    taken, refused = [item.image for item in delivery.images], delivery.refused
    outcome = {"added": len(taken), "known": len(delivery.known), "refused": len(refused)}
    check(sum(outcome.values()) == len(given), "a file is neither added nor known nor refused")
    now = images(tree(project.root))
    new = sorted(now[path] for path in now.keys() - images(before).keys())
    check(new == sorted(taken), "the day's folder has not what was added")
    check(set(taken) <= set(given.values()), "other bytes came in than were given")
    listed = project.rejected(DAY).read_text(encoding="utf-8") if refused else ""
    check(all(remark.place in listed for remark in refused), "a refused file is not listed")
    return Counter(outcome), [remark.text.partition(" (")[0][:50] for remark in refused]


def images(found: dict[str, str]) -> dict[str, str]:
    """What of a project's tree a refusal must leave as it was: all but the list of the refused."""
    return {path: one for path, one in found.items() if not path.startswith("data/rejected/")}


def peak(process: int) -> float:
    """The most memory that a process has had, in MiB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return max((int(s.split()[1]) / 1024 for s in lines if s.startswith("VmHWM")), default=0.0)


def fuzz_texts(top: Path, count: int, seed: int) -> Counter[str]:
    """Read `count` mutated params and corrections; each is taken or refused, in time.

    Nothing but a DayfoldError is raised, none takes more than SECONDS, and where one is refused
    the project has not changed besides that file.
    """
    draw, outcomes = random.Random(seed), Counter[str]()  # noqa: S311
    project = opened(top / "texts")

    def read() -> object:
        return snapshot.run(project, params_file.read(project.params))

    place(project.images(DAY), "cat", range(12))
    quietly(read)
    ids = manifest.history(project, DAY).images["image"].to_list()
    open_day(project, NEXT)
    place(project.images(NEXT), "cat", range(100, 103))
    events = f"relabel,{ids[0]},dog,seen again\nwithdraw,{ids[1]},,consent\n"
    kinds: dict[str, tuple[Path, str, Callable[[], object]]] = {
        "params": (
            project.params,
            project.params.read_text(encoding="utf-8"),
            lambda: params_file.read(project.params),
        ),
        "corrections": (project.corrections(NEXT), "action,image,label,reason\n" + events, read),
    }
    texts = [text.encode() for _, text, _ in kinds.values()]
    slowest = 0.0
    for _ in range(count):
        name = draw.choice(list(kinds))
        path, text, use = kinds[name]
        path.write_bytes(mutated(text.encode(), texts, draw))
        before, began = tree(project.root), time.monotonic()
        try:
            quietly(use)
            outcomes[f"{name} taken"] += 1
        except DayfoldError as error:
            outcomes[f"{name} refused"] += 1
            check(bool(str(error).strip()), "an error says nothing")
            check(tree(project.root) == before, f"refused {name} changed the project")
        slowest = max(slowest, time.monotonic() - began)
        check(slowest < SECONDS, f"{name} took {slowest:.1f} s")
        path.write_text(text, encoding="utf-8")
    print(f"texts: {dict(sorted(outcomes.items()))}; slowest {slowest:.2f} s")
    return outcomes


def fuzz_archives(top: Path, count: int, seed: int) -> Counter[str]:
    """Unpack `count` mutated archives; nothing is written outside their folder, none is slow."""
    home, slowest = top / "archives", 0.0
    home.mkdir()
    good = archives(home / "given")
    draw, outcomes = random.Random(seed), Counter[str]()  # noqa: S311
    for _ in range(count):
        given, into = home / "given", home / "into"
        given.write_bytes(mutated(draw.choice(good), good, draw))
        into.mkdir()
        began = time.monotonic()
        try:
            workers.unpack(given, into)
            outcomes["unpacked"] += 1
        except IntakeError as error:
            outcomes["refused"] += 1
            check("crash" not in error.what, error.what)
        slowest = max(slowest, time.monotonic() - began)
        check(slowest < SECONDS, f"an archive took {slowest:.1f} s")
        check({path.name for path in home.iterdir()} == {"given", "into"}, "written elsewhere")
        shutil.rmtree(into)
    print(f"archives: {dict(outcomes)}; slowest {slowest:.2f} s")
    return outcomes


def archives(path: Path) -> list[bytes]:
    """Zip and tar archives of three files, by every compression."""
    members = [(f"cat/{number}.png", bytes(range(200)) * 3) for number in range(3)]
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    found = [zipped(path, members, method).read_bytes() for method in methods]
    modes = ("w", "w:gz", "w:bz2", "w:xz")
    return found + [tarred(path, members, mode).read_bytes() for mode in modes]


def quietly(read: Callable[[], object]) -> None:
    """Call without what it prints."""
    with redirect_stdout(io.StringIO()):
        read()


def check(holds: bool, otherwise: str) -> None:
    """Stop where something does not hold."""
    if not holds:
        raise AssertionError(otherwise)


def main() -> None:
    """Fuzz all four, in a folder that goes afterwards."""
    from test_adding_labels import fuzz as fuzz_labels  # which has this file's `mutated`

    numbers = [int(word) for word in sys.argv[1:]]
    count, texts, seed = [*numbers, *(20_000, 5_000, 0)[len(numbers) :]]
    with tempfile.TemporaryDirectory() as name:
        fuzz_images(Path(name), count, seed)
        fuzz_texts(Path(name), texts, seed)
        fuzz_archives(Path(name), texts, seed)
        labelled = tools.images(Path(name) / "labelled")
        print(f"labels: {fuzz_labels(opened(Path(name) / 'labels'), labelled, texts, seed)}")
    print("0 tracebacks, 0 hangs, 0 files lost, nothing half-done")


if __name__ == "__main__":
    main()
