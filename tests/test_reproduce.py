"""Days made again: identical where nothing changed, and told where and why where something did."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from builders import RealProject
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.history.record import Sealed
from dayfold.learning import device
from dayfold.learning.device import Machine
from dayfold.project import params, vcs
from dayfold.project.files import write_bytes
from dayfold.proof import reproduce
from dayfold.proof.reproduce import records_until
from dayfold.proof.reproduce import worktrees as making
from dayfold.proof.verify import verify

ONE, TWO, THREE = DAYS[:3]
RESTORE = "dayfold reproduce --from-scratch --restore"


def worktrees(project: RealProject) -> list[str]:
    return vcs.git(project.root, "worktree", "list").splitlines()


def state(project: RealProject, *but: str) -> dict[str, tuple[int, int]]:
    """Every file of a project but the scratch of this machine, with its size and time."""
    return {
        project.name(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in project.root.rglob("*")
        if path.is_file() and not {".git", "tmp", *but} & set(path.relative_to(project.root).parts)
    }


@pytest.mark.slow
def test_from_git_and_images_alone_all_days_are_identical_and_come_back_to_the_cache(
    three_days, tmp_path, shell
):
    shell(tmp_path, "git", "clone", "--quiet", str(three_days.root), "elsewhere")
    clone = RealProject(tmp_path / "elsewhere")
    for day in (ONE, TWO, THREE):
        shutil.copytree(three_days.images(day), clone.images(day))
    # Other times, another order on the disk, other rights.
    for number, path in enumerate(sorted(clone.images(TWO).rglob("*.png"), reverse=True)):
        path.chmod(0o600)
        os.utime(path, (number, number))
    (_, what, commit), (days, _, fix) = verify(clone, read_data=False).damage
    assert what.startswith("in data/ only, not in DVC's cache, so no push includes it: data/images")
    clone.shell(*commit.split())
    assert len(verify(clone, read_data=False).damage) == 1
    assert days == f"{ONE} to {THREE}"
    assert fix.endswith(f"; or make it again here: {RESTORE} {THREE}")
    before = state(clone, "cache")
    clone.git("config", "core.worktree", str(clone.root))  # as in a submodule
    other = {"TZ": "Pacific/Chatham", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    said = clone.shell(*RESTORE.split(), TWO, **other)
    for level in ("A  plans", "B  bits", "C  GPU", "D  figures"):
        assert level in said
    assert "as recorded: expect A and B" in said
    assert f"{ONE}  identical\n{TWO}  identical\n" in said
    assert said.endswith("2 of 2 days identical, to the bit\n")
    assert state(clone, "cache") == before
    assert {one.day for one in verify(clone, read_data=False).damage} == {THREE}
    assert len(worktrees(clone)) == 1
    assert not clone.rebuilt.exists()


@pytest.mark.slow
def test_another_thread_count_differs_in_bits_and_not_in_plans(copy):
    copy.images(ONE).rename(copy.root / "away")
    said = copy.dayfold("reproduce", TWO, code=1)
    assert f"{TWO}  not made: images of {ONE} are not here: dvc checkout || dvc pull" in said
    (copy.root / "away").rename(copy.images(ONE))
    # As if its params had been edited after it was made.
    params.edit(copy.params, {"day": TWO, "parent": ONE, "train.threads": 2})
    vcs.git(copy.root, "checkout", "--quiet", f"day/{TWO}", "--", ".", ":!params.yaml")
    vcs.git(copy.root, "commit", "--quiet", "--all", "--message", "forged")
    vcs.git(copy.root, "tag", "--force", "--annotate", "--message", "forged", f"day/{TWO}")
    before = state(copy)
    said = copy.dayfold("reproduce", TWO, code=1)
    assert "differs: threads 1 → 2" in said
    assert "expect A and D" in said
    assert f"{TWO}  A equal  B DIFFERS  data/model.safetensors; " in said
    assert "why: fingerprint: threads 1 → 2" in said
    assert said.endswith("0 of 1 days identical, to the bit; 1 A equal  B DIFFERS\n")
    assert state(copy) == before


@pytest.mark.cold
@pytest.mark.slow
def test_interrupted_it_leaves_no_worktree(copy):
    process = subprocess.Popen(
        ["dayfold", "reproduce", "--all"],
        cwd=copy.root,
        env=vcs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    until = time.monotonic() + 300
    while len(worktrees(copy)) == 1:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert said.endswith(b"\ndayfold: interrupted\n")
    assert b"Traceback" not in said
    assert len(worktrees(copy)) == 1
    assert not copy.rebuilt.exists()


@pytest.mark.slow
def test_only_sealed_days_are_made_again_and_what_a_kill_left_is_removed(copy, tmp_path):
    with pytest.raises(CycleError, match=rf"2024-01-01; sealed are {ONE} to {THREE}"):
        records_until(copy, [ONE, "2024-01-01"])
    for given, line in (([], DAYS[:3]), ([TWO], (ONE, TWO))):
        assert [sealed.day for sealed in records_until(copy, given)] == list(line)
    theirs = tmp_path / "theirs"
    for path in (theirs, copy.rebuilt):
        vcs.git(copy.root, "worktree", "add", "--quiet", "--detach", str(path))
    with making(copy):
        assert len(worktrees(copy)) == 2
        assert not copy.rebuilt.exists()
        with pytest.raises(CycleError, match="Another process is reproducing"), making(copy):
            pass
    assert theirs.is_dir()
    assert len(worktrees(copy)) == 2


@pytest.mark.parametrize(
    ("accuracy", "outcome"), [(0.55, reproduce.WITHIN), (0.3, reproduce.OUTSIDE)]
)
def test_figures_of_another_version_are_within_their_intervals_or_named(project, accuracy, outcome):
    figures = {"accuracy": 0.5, "average_accuracy": 0.5}
    recorded = {**figures, "interval": {"accuracy": {"low": 0.4, "high": 0.6}}}
    files = {"params.yaml": b"dayfold: '0.1.0'", "metrics.json": json.dumps(recorded).encode()}
    for path in (project.metrics, project.figures):
        write_bytes(path, json.dumps({**figures, "accuracy": accuracy}).encode())
    result = reproduce.compare(Sealed(project, ONE, files), project)
    assert (result.outcome, result.is_as_expected) == (outcome, accuracy == 0.55)
    outside = "accuracy 0.300, recorded 0.500 (0.400 to 0.600)"
    assert str(result).endswith("average_accuracy equal" if accuracy == 0.55 else outside)


CODE = """
import json
from dayfold.learning import device
machine = device.resolve(device="cpu", precision="fp32", threads=1)
print(json.dumps(device.fingerprint(machine)))
"""


@pytest.fixture(scope="module")
def here():
    return device.fingerprint(device.resolve(device="cpu", precision="fp32", threads=1))


def test_another_process_has_the_same_fingerprint(here):
    said = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(said) == here
    assert reproduce.differences(json.loads(said), here) == []
    assert here["torch"] == torch.__version__
    assert (here["device"], here["precision"]) == ("cpu", "fp32")
    assert (here["threads"], here["processes"]) == (1, 1)
    assert here["cpu_features"]


def test_canaries_tell_one_arithmetic_one_kind_of_block_and_one_resize_from_another(
    here, monkeypatch
):
    machine = Machine("cpu", "fp32", 1)
    assert device.training_canary(machine) == here["training_canary"]
    assert device.training_canary(Machine("cpu", "bf16", 1)) != here["training_canary"]
    assert device.fingerprint(machine, "resnet34") == here
    other = device.fingerprint(machine, "resnet50")
    assert [key for key in here if other[key] != here[key]] == ["training_canary"]
    squared = device.squared
    monkeypatch.setattr(device, "squared", lambda image, size: squared(image, size + 1)[:, 1:, 1:])
    assert device.decode_canary() != here["decode_canary"]


def test_every_difference_is_named_and_of_features_only_what_one_of_them_lacks():
    recorded = {"torch": "2.14.1", "cpu_features": "avx avx2 fma3", "threads": 2, "gone": "x"}
    here = {"torch": "2.14.1", "cpu_features": "avx avx2 avx512_bf16", "threads": 4, "new": 1}
    recorded["decode_canary"], here["decode_canary"] = "a" * 64, "b" * 64
    assert reproduce.differences(recorded, here) == [
        "cpu_features -fma3 +avx512_bf16",
        "threads 2 → 4",
        "decode_canary aaaaaaaaaaaa… → bbbbbbbbbbbb…",
    ]
