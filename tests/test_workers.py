"""A file that crashes, stops or bloats its decoder is refused, and nothing else comes to harm."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from builders import encoded, png
from dayfold.errors import IntakeError
from dayfold.ledger.intake import workers
from dayfold.project.files import sha256

RULES = {"stage": "", "max_pixels": 10**6}


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


def test_answers_come_in_the_order_of_the_requests(files):
    found = workers.answers([request(path) for path in files])
    assert [one["image"] for one in found] == [sha256(png(number)) for number in range(8)]


def test_the_checked_bytes_are_left_in_the_stage(files, tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    files[1].write_bytes(b"no image")
    workers.answers([request(path, stage=str(stage)) for path in files])
    assert {path.name: path.read_bytes() for path in stage.iterdir()} == {
        sha256(png(number)): png(number) for number in range(8) if number != 1
    }


def test_the_same_bytes_many_times_over_are_left_once(tmp_path):
    stage = tmp_path / "stage"
    stage.mkdir()
    paths = [tmp_path / f"{number}.png" for number in range(400)]
    for path in paths:
        path.write_bytes(png(1))
    found = workers.answers([request(path, stage=str(stage)) for path in paths])
    assert {one["image"] for one in found} == {sha256(png(1))}
    assert all("look" in one and "failed" not in one for one in found)
    assert [path.read_bytes() for path in stage.iterdir()] == [png(1)]


def test_a_stage_that_cannot_be_written_is_said(files, tmp_path):
    assert (
        "No such file" in answer(files[0], stage=str(tmp_path / "file")).get("failed", "")
        or (tmp_path / "file").is_dir()
    )
    (tmp_path / "taken").write_text("")
    assert "failed" in answer(files[0], stage=str(tmp_path / "taken"))


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


def test_a_file_that_crashes_its_decoder_is_refused(files, tmp_path, monkeypatch):
    program = tmp_path / "crashes.py"
    program.write_text("import os\ninput()\nos.abort()\n")
    monkeypatch.setattr(workers, "_PROGRAM", program)
    monkeypatch.setattr(workers, "_idle", [])
    assert answer(files[0]) == {
        "image": "",
        "refused": "makes its decoder crash (SIGABRT)",
    }


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


def test_an_image_of_too_many_pixels_is_refused_unseen(tmp_path):
    # 64 million pixels of one grey: 0.3 MB of PNG that would be 190 MB of RGB.
    path = tmp_path / "large.png"
    path.write_bytes(encoded(Image.new("L", (8000, 8000))))
    before = {process: peak(process) for process in [one.process.pid for one in workers._idle]}
    assert "too large to be decoded safely: 8000 x 8000 px" in answer(path)["refused"]
    assert all(peak(process) < 20 + most for process, most in before.items())


def test_a_worker_gets_no_more_memory_than_it_may():
    code = (
        "from dayfold.ledger.intake import worker\n"
        "worker._limit_memory(worker._own_size(), 10**6)\n"
        "bytes(2**30)\n"
        "try:\n    bytes(2**31)\nexcept MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def peak(process):
    """The most memory that a process has had, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize(("side", "reason"), [(7, "is too small: 7 x 7 px"), (8, None)])
def test_a_side_must_have_its_pixels(tmp_path, side, reason):
    path = tmp_path / "small.png"
    path.write_bytes(encoded(Image.new("RGB", (side, side))))
    assert (answer(path).get("refused") or "").startswith(reason or "")
    assert ("refused" in answer(path)) == bool(reason)


def test_of_several_frames_the_first_is_taken_with_a_warning(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    path = tmp_path / "loop.gif"
    path.write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert answer(path)["warnings"] == ["has several frames; the first one is taken"]


@pytest.mark.parametrize(
    ("name", "warned"), [("a.png", True), ("a.JPG", False), ("a", False), ("a.img", False)]
)
def test_a_wrong_ending_is_taken_by_content_with_a_warning(tmp_path, name, warned):
    path = tmp_path / name
    path.write_bytes(encoded(Image.new("RGB", (9, 9)), "JPEG"))
    expected = ["is JPEG in spite of its ending .png; taken as JPEG"]
    assert answer(path)["warnings"] == expected * warned


def test_what_took_the_place_of_a_file_meanwhile_is_not_read(tmp_path, files):
    (tmp_path / "link.png").symlink_to(files[0])
    assert "cannot be read" in answer(tmp_path / "link.png")["refused"]
    os.mkfifo(tmp_path / "pipe.png")
    assert "is not a file" in answer(tmp_path / "pipe.png")["refused"]
    assert "cannot be read" in answer(tmp_path / "nothing.png")["refused"]


def test_a_file_of_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    began = time.monotonic()
    assert answer(path)["refused"] == "is larger than 512 MiB"
    assert time.monotonic() - began < 5


def test_an_archive_that_is_none_is_told(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "into").mkdir()
    assert workers.unpack(tmp_path / "a.zip", tmp_path / "into") == []
    (tmp_path / "b.zip").write_bytes(b"not at all")
    with pytest.raises(IntakeError, match="is neither a folder nor a zip or tar archive"):
        workers.unpack(tmp_path / "b.zip", tmp_path / "into")
