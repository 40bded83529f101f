"""Mutated files against intake: no traceback, no hang, bounded memory, nothing lost or half-done.

Each is a good file with bytes flipped, cut, copied, joined with another's or set to odd numbers.
FUZZ=40 in the environment makes forty times as many of them, for a quiet hour.
"""

import io
import os
import random
import shutil
import time
import zipfile
from collections import Counter

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from builders import DAYS, contents, encoded, open_day, place, run_stages
from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.errors import DayfoldError, IntakeError
from dayfold.ledger import manifest
from dayfold.ledger.decode import examine
from dayfold.ledger.intake import workers
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.stages import snapshot
from test_archives import tarred, zipped
from test_dicom import scan, written
from test_workers import peak

DAY, NEXT = DAYS[:2]
TIMES = int(os.environ.get("FUZZ", "1"))
DELIVERY = 250  # files
SECONDS = 5.0  # that one file may take
MEBIBYTES = 2048  # that a worker may have, at most


@pytest.fixture
def draw():
    return random.Random(1)  # noqa: S311


def pictures():
    """Small good files of every format and mode that is taken, by name with its ending."""
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (24, 32, 4), dtype=np.uint8)
    colour, alpha = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    grey = colour.convert("L")
    deep = Image.fromarray(draw.integers(0, 65536, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6

    def several(form):
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
    # Grey with a window, RGB of several frames, the same compressed.
    tags = {"PatientID": "P1", "StudyInstanceUID": "1.2.3.4"}
    window = scan(noise[..., 0], WindowCenter=100, WindowWidth=90, **tags)
    for name, data in (("grey", window), ("rgb", scan([noise[..., :3]] * 3, "RGB", **tags))):
        packed = pydicom.dcmread(io.BytesIO(data))
        packed.compress(RLELossless)
        made |= {f"{name}-plain.dcm": data, f"{name}-rle.dcm": written(packed)}
    return made


def mutated(data, others, draw):
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


def without_rejected(found):
    """What of a project a refusal must leave as it was: all but the list of the refused."""
    return {path: data for path, data in found.items() if not path.startswith("data/rejected/")}


def test_every_file_that_is_mutated_was_good():
    forms = {examine(data).form for data in pictures().values()}
    assert forms == {"PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "DICOM"}


def test_mutated_images_are_added_or_refused_and_none_is_lost(
    receiving, tmp_path, monkeypatch, draw
):
    monkeypatch.setattr(workers, "SECONDS", SECONDS)
    good, count = pictures(), 500 * TIMES
    for start in range(0, count, DELIVERY):
        source = tmp_path / "delivery"
        (source / "cat").mkdir(parents=True)
        for number in range(start, min(count, start + DELIVERY)):
            name = draw.choice(list(good))
            data = mutated(good[name], list(good.values()), draw)
            (source / "cat" / f"{number}-{name}").write_bytes(data)
        options = Options(strict=start > 0 and draw.random() < 0.1)
        deliver(receiving, source, options)
        assert max(peak(one.process.pid) for one in workers._idle) < MEBIBYTES
        shutil.rmtree(source)
    # What came in is a day like any other.
    run_stages(receiving, snapshot)


def deliver(project, source, options):
    """Add a delivery: each file is added, known or refused; one refused whole changes nothing."""
    given, before = contents(source), without_rejected(contents(project.root))
    try:
        delivery = adding.add(project, source, day=DAY, options=options)
    except IntakeError as error:
        named = error.problems
        assert named
        assert without_rejected(contents(project.root)) == before
        return
    finally:
        assert contents(source) == given
    taken, refused = [item.image for item in delivery.images], delivery.refused
    assert len(taken) + len(delivery.known) + len(refused) == len(given)
    now = without_rejected(contents(project.root))
    assert sorted(sha256(now[path]) for path in now.keys() - before.keys()) == sorted(taken)
    assert set(taken) <= set(map(sha256, given.values()))
    listed = project.rejected(DAY).read_text(encoding="utf-8") if refused else ""
    assert all(remark.place in listed for remark in refused)
    assert not any(remark.text.startswith("takes longer") for remark in refused)


def test_mutated_params_and_corrections_are_taken_or_refused(receiving, draw):
    outcomes, project = Counter(), receiving

    def read():
        run_stages(project, snapshot)

    place(project.images(DAY), "cat", range(12))
    read()
    ids = manifest.history(project, DAY).images["image"].to_list()
    open_day(project, NEXT)
    place(project.images(NEXT), "cat", range(100, 103))
    events = f"relabel,{ids[0]},dog,seen again\nwithdraw,{ids[1]},,consent\n"
    kinds = {
        "params": (
            project.params,
            project.params.read_bytes(),
            lambda: params_file.read(project.params),
        ),
        "corrections": (
            project.corrections(NEXT),
            f"action,image,label,reason\n{events}".encode(),
            read,
        ),
    }
    for _ in range(100 * TIMES):
        name = draw.choice(list(kinds))
        path, good, use = kinds[name]
        path.write_bytes(mutated(good, [text for _, text, _ in kinds.values()], draw))
        before, began = contents(project.root), time.monotonic()
        try:
            use()
            outcomes[f"{name} taken"] += 1
        except DayfoldError as error:
            outcomes[f"{name} refused"] += 1
            said = str(error).strip()
            assert said
            assert contents(project.root) == before
        assert time.monotonic() - began < SECONDS
        path.write_bytes(good)
    assert len(outcomes) == 4


def test_mutated_archives_are_unpacked_or_refused(tmp_path, draw):
    given, into = tmp_path / "given", tmp_path / "into"
    members = [(f"cat/{number}.png", bytes(range(200)) * 3) for number in range(3)]
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    good = [zipped(given, members, method).read_bytes() for method in methods]
    good += [tarred(given, members, f"w{form}").read_bytes() for form in ("", ":gz", ":bz2", ":xz")]
    for _ in range(200 * TIMES):
        given.write_bytes(mutated(draw.choice(good), good, draw))
        into.mkdir()
        began = time.monotonic()
        try:
            workers.unpack(given, into)
        except IntakeError as error:
            said = error.what
            assert "crash" not in said
        assert time.monotonic() - began < SECONDS
        assert {path.name for path in tmp_path.iterdir()} == {"given", "into"}
        shutil.rmtree(into)
