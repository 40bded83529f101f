"""Beside other work: how threads wait, what a slow training says, slices, kept squares."""

import importlib.metadata
import io
import math
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from builders import DAYS, make_project, png, take_in
from dayfold.learning import device, network, pixels, speed
from dayfold.learning.device import Machine
from dayfold.learning.parallel import Slices, slices_of
from dayfold.learning.speed import SpeedMonitor
from dayfold.ledger.decode import squared
from dayfold.ledger.image_cache import ImageCache, read_square, square_cache, write_square
from dayfold.project import cpus, params
from dayfold.project.files import sha256, with_digest
from pools import pool_of, start_of


def waiting(**given):
    """How threads wait in a process that starts with these: OMP_WAIT_POLICY and GOMP_SPINCOUNT."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = f"import os, dayfold.learning; print(*(os.environ.get(name) for name in {names}))"
    own = {name: value for name, value in os.environ.items() if name not in names} | given
    said = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)
    return said.stdout.split()


@pytest.mark.cold
def test_beside_busy_processes_waiting_threads_give_way_but_a_persons_own_policy_stays(burning):
    assert waiting()[0] == "PASSIVE"
    assert waiting(OMP_WAIT_POLICY="ACTIVE") == ["ACTIVE", "None"]
    assert waiting(GOMP_SPINCOUNT="7") == ["None", "7"]


BUSY = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.fixture
def burning():
    """As many busy processes as CPUs."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cpus.cpus())]
    time.sleep(0.5)
    yield
    for other in others:
        other.kill()
        other.wait()


def test_a_slow_training_is_told_once_with_what_else_is_at_work(burning, monkeypatch):
    monkeypatch.setattr(speed, "WINDOW_SECONDS", 0.02)
    slow = SpeedMonitor(usual=1e6, day="2025-06-02")
    said = []
    for _ in range(12):
        time.sleep(0.01)
        said.append(slow.update(32))
    (told,) = filter(None, said)
    assert told.startswith("slow: ")
    assert "images a second, 1e+06 on 2025-06-02; " in told
    assert f"of {cpus.cpus()} CPUs, others use: " in told
    assert "python" in told


def test_a_training_is_compared_with_its_own_start_and_not_told_while_it_keeps_up(monkeypatch):
    monkeypatch.setattr(speed, "WINDOW_SECONDS", 0.2)
    own = SpeedMonitor()
    steady = []
    for _ in range(9):
        time.sleep(0.1)
        steady.append(own.update(32))
    assert not any(steady)
    later = []
    for _ in range(6):
        time.sleep(0.8)
        later.append(own.update(32))
    (told,) = filter(None, later)
    assert " at its start; " in told


def test_only_bf16_on_a_cpu_is_computed_in_slices_and_none_is_too_small_for_batch_norm():
    assert slices_of(Machine("cpu", "fp32", 8), 32) == 1
    assert slices_of(Machine("cuda", "bf16", 8), 32) == 1
    assert slices_of(Machine("cpu", "bf16", 1), 32) == 1
    assert slices_of(Machine("cpu", "bf16", 8), 32) == 2
    assert slices_of(Machine("cpu", "bf16", 2), 15) == 1


def test_slices_make_the_gradients_and_statistics_of_their_own_batches_in_a_fixed_order():
    pool = pool_of(8, 3)
    batch = pixels.normalised(pool.pixels)

    def loss(net, images, chosen):
        return functional.cross_entropy(net(images), pool.targets[chosen])

    def sliced():
        net = network.build(start_of(3), 32).train()
        return net, Slices(net, loss, 2, 2).backward(batch, np.arange(8))

    one, together = sliced()
    other, again = sliced()
    assert torch.equal(together, again)
    alone = [network.build(start_of(3), 32).train() for _ in range(2)]
    halves = [np.arange(4), np.arange(4, 8)]
    losses = [loss(net, batch[half], half) for net, half in zip(alone, halves, strict=True)]
    for half in losses:
        half.backward()
    assert float(together) == pytest.approx(sum(half.item() for half in losses) / 2, rel=1e-6)
    for mine, twin, *parts in zip(*(net.parameters() for net in (one, other, *alone)), strict=True):
        assert torch.equal(mine.grad, twin.grad)
        mean = (parts[0].grad + parts[1].grad) / 2
        assert (mine.grad - mean).norm() < 1e-3 * mean.norm()
    for mine, *parts in zip(*(net.buffers() for net in (one, *alone)), strict=True):
        if mine.is_floating_point():
            assert torch.allclose(mine, (parts[0] + parts[1]) / 2, rtol=1e-4, atol=1e-6)


def test_what_does_not_multiply_in_bf16_is_pinned_to_fp32_and_the_comment_says_why(tmp_path):
    project = make_project(tmp_path / "project")
    if cpus.multiplies_bf16() or torch.cuda.is_available():
        pytest.skip("it is measured here")
    params.edit(project.params, {"train.precision": "auto"})
    assert speed.pin_precision(project, params.read(project.params)).startswith("fp32 (")
    assert params.read(project.params).train.precision == "fp32"
    (line,) = [line for line in project.params.read_text().splitlines() if "precision:" in line]
    assert line.split("#")[1].startswith(" auto, fp32, bf16; here: ")
    assert line.endswith("does not multiply in bf16")


def test_the_faster_precision_is_pinned_by_a_measurement(repository, monkeypatch):
    monkeypatch.setattr(device, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(speed, "MEASURED_SECONDS", 0.01)
    whole = params.read(repository / "params.yaml")
    recipe, start = whole.train, whole.origin
    small = recipe.model_copy(update={"image_size_px": 16, "batch_size": 4, "device": "cpu"})
    monkeypatch.setattr(speed, "SPEEDUP", 0.0)
    chosen, why = speed.choose_precision(small, start)
    assert chosen == "bf16"
    assert re.match(r"bf16 is [\d.]+ times as fast at 16 px on ", why)
    monkeypatch.setattr(speed, "SPEEDUP", math.inf)
    deep = start.model_copy(update={"network": "resnet50"})
    assert speed.choose_precision(small, deep)[0] == "fp32"


def test_a_kept_square_is_not_decoded_again_but_its_image_is_still_checked(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    image = sha256(png(1))

    def load(size=16):
        return pixels.load(tmp_path, ["a.png"], [image], size)

    first = load()
    (path,) = (tmp_path / ".dvc/tmp/dayfold/squares").glob("*/*")
    assert path.name == image
    path.write_bytes(with_digest(bytes(3 * 16 * 16)))
    assert not load().any()
    path.write_bytes(b"damaged")
    assert torch.equal(load(), first)
    assert torch.equal(load(), first)
    assert load(32).shape == (1, 3, 32, 32)
    (tmp_path / "a.png").write_bytes(b"another")
    with pytest.raises(Exception, match="cannot be read"):
        load()


def test_a_snapshot_keeps_the_squares_of_the_days_images(tmp_path):
    project = make_project(tmp_path / "project")
    take_in(project, DAYS[0], {"heart": range(4)})
    size = params.read(project.params).train.image_size_px
    kept = square_cache(project.squares, size)
    for number in range(4):
        wanted = squared(Image.open(io.BytesIO(png(number))), size)
        assert np.array_equal(read_square(kept, sha256(png(number)), size), wanted)
    assert len(list(kept.folder.iterdir())) == 4


def test_squares_are_kept_without_the_extra_for_dicom_and_a_full_disk_stops_nothing(
    tmp_path, monkeypatch
):
    real, whole = importlib.metadata.version, square_cache(tmp_path, 16)

    def version(name):
        if name == "pydicom":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    kept = square_cache(tmp_path, 16)
    assert kept.folder.is_dir()
    assert kept.folder != whole.folder
    nowhere = ImageCache(tmp_path / "missing")
    write_square(nowhere, "0" * 64, np.zeros((3, 16, 16), np.uint8))
    assert read_square(nowhere, "0" * 64, 16) is None
