"""A file that crashes, stops or bloats its decoder is refused, and nothing else comes to harm."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from builders import encoded, png
from dayfold.ledger.intake import workers
from dayfold.project.files import sha256

cold = pytest.mark.cold  # processes are looked at, stopped and killed
RULES = {"stage": ""}


@pytest.fixture(autouse=True)
def _no_idle_ones():
    workers.end_idle()


def peak(process):
    """The most memory that a process has had, in MiB (Linux; elsewhere 0)."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def request(path, **changes):
    return {"path": str(path), **RULES, **changes}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))
    return paths


def answer(path, **changes):
    (found,) = workers.answers([request(path, **changes)])
    return found


def test_answers_come_in_order_and_the_bytes_of_good_files_are_left_in_the_stage(files, tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    files[1].write_bytes(b"no image")
    copies = [tmp_path / f"copy {number}.png" for number in range(300)]
    for path in copies:
        path.write_bytes(png(2))
    found = workers.answers([request(path, stage=str(stage)) for path in (*files, *copies)])
    hashes = [sha256(png(number)) for number in (*range(8), *[2] * 300)]
    hashes[1] = sha256(b"no image")
    assert [one["image"] for one in found] == hashes
    assert [at for at, one in enumerate(found) if "look" not in one] == [1]
    assert {path.name: path.read_bytes() for path in stage.iterdir()} == {
        sha256(png(number)): png(number) for number in range(8) if number != 1
    }


def test_a_stage_that_cannot_be_written_is_said(files, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "failed" in answer(files[0], stage=str(tmp_path / "taken"))


@cold
def test_a_worker_that_somebody_kills_costs_no_file(files):
    answer(files[0])
    victim = [one.process.pid for one in workers._idle][-1]  # the next to be asked
    os.kill(victim, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
    killer.start()
    assert answer(files[1])["image"] == sha256(png(1))
    killer.join()
    # And one that is killed as it waits.
    waiting = [one.process.pid for one in workers._idle][-1]
    os.kill(waiting, signal.SIGKILL)
    assert answer(files[2])["image"] == sha256(png(2))
    assert not {victim, waiting} & {one.process.pid for one in workers._idle}


@cold
def test_a_file_that_crashes_its_decoder_is_refused(files, tmp_path, monkeypatch):
    program = tmp_path / "crashes.py"
    program.write_text("import os\ninput()\nos.abort()\n")
    monkeypatch.setattr(workers, "_PROGRAM", program)
    monkeypatch.setattr(workers, "_idle", [])
    assert answer(files[0]) == {"image": "", "refused": "makes its decoder crash (SIGABRT)"}


@cold
def test_a_worker_that_hangs_is_given_up_and_ended(files, monkeypatch):
    answer(files[0])
    hung = [one.process.pid for one in workers._idle][-1]
    os.kill(hung, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(workers, "SECONDS", 0.3)
        found = answer(files[0])
    assert found == {"image": "", "refused": "takes longer than 0.3 s to decode"}
    assert hung not in [one.process.pid for one in workers._idle]
    assert "look" in answer(files[1])


@cold
def test_an_image_of_too_many_pixels_is_refused_unseen(tmp_path):
    # 90 million pixels of one grey: 0.4 MB of PNG that would be 270 MB of RGB.
    path = tmp_path / "large.png"
    path.write_bytes(encoded(Image.new("L", (9500, 9500))))
    before = {process: peak(process) for process in [one.process.pid for one in workers._idle]}
    assert "too large to be decoded safely: 9500 x 9500 px" in answer(path)["refused"]
    assert all(peak(process) < 20 + most for process, most in before.items())


def test_a_worker_gets_no_more_memory_than_it_may():
    code = (
        "from dayfold.ledger.intake import workers\n"
        "workers._limit_memory(workers._own_size(), 10**6)\n"
        "bytes(2**30)\n"
        "try:\n    bytes(2**31)\nexcept MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_what_a_person_must_know_of_a_file_is_said(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    loop = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    jpeg = encoded(frames[0], "JPEG")
    several = "has several frames; the first one is taken"
    spite = "is JPEG in spite of its ending .png; taken as JPEG"
    for name, data, warned in (
        ("small.png", encoded(Image.new("RGB", (7, 7))), None),
        ("least.png", encoded(Image.new("RGB", (8, 8))), []),
        ("loop.gif", loop, [several]),
        ("a.png", jpeg, [spite]),
        ("a.JPG", jpeg, []),
        ("a", jpeg, []),
        ("a.img", jpeg, []),
    ):
        (tmp_path / name).write_bytes(data)
        found = answer(tmp_path / name)
        assert found.get("warnings") == warned, name
        assert found.get("refused", "").startswith("is too small: 7 x 7 px" * (warned is None))


def test_what_took_the_place_of_a_file_meanwhile_is_not_read_nor_are_gigabytes(tmp_path, files):
    (tmp_path / "link.png").symlink_to(files[0])
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)
    began = time.monotonic()
    for name, said in (
        ("link", "cannot be read"),
        ("pipe", "is not a file"),
        ("nothing", "cannot be read"),
        ("huge", "is larger than 512 MiB"),
    ):
        assert said in answer(tmp_path / f"{name}.png")["refused"]
    assert time.monotonic() - began < 5
