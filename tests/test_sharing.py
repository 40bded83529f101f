"""Several clones of one history: what each refuses, and the way on that it tells."""

import json
import re
import shutil

import pytest

from dayfold.cycle import sealing
from dayfold.demo import DAYS
from dayfold.project import pins, storage, vcs
from dayfold.project.files import md5_file, sha256_file
from dayfold.project.layout import Project
from dayfold.proof.verify import verify

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]


@pytest.fixture(scope="module")
def shared(three_days, tmp_path_factory, share):
    """The three days with a git remote and a DVC remote, both folders beside it; pushed."""
    return share(three_days, tmp_path_factory.mktemp("shared"), "../store")


def clone(shared, folder, *words) -> Project:
    url = f"file://{shared.root.parent / 'shared.git'}"
    vcs.git(shared.root.parent, "clone", "--quiet", *words, url, str(folder))
    # Days of before there was a remote know it only from here.
    vcs.dvc(folder, "remote", "add", "--local", "-d", "store", str(shared.root.parent / "store"))
    return Project(folder)


def test_a_clone_says_what_is_not_here_and_gets_any_day_and_runs_today(
    shared, tmp_path, shell, digits
):
    fresh = clone(shared, tmp_path / "fresh")
    gone = f"{THREE} is sealed, but not here yet: data/model.safetensors, data/predictions.csv."
    get = "dvc checkout || dvc pull || dayfold check\n"
    assert f"{gone}\nnext    {get}" in shell(fresh.root, "dayfold", "status")
    said = shell(fresh.root, "dayfold", "add", str(digits / FOUR), "--day", FOUR, code=1)
    assert f"{gone}\n→ {get}" in said
    said = shell(fresh.root, "dayfold", "audit", code=1)
    assert f"data/model.safetensors is not here yet.\n→ {get}" in said
    said = shell(fresh.root, "dayfold", "log").splitlines()
    lines = said[:4]
    assert said[-1].startswith("Too few test images to judge these classes: 0 (18 images), ")
    assert [line.split()[0] for line in lines] == ["day", ONE, TWO, THREE]
    assert lines[2].split()[2:4] == ["7", "+6"]
    assert max(map(len, lines)) <= 100
    assert [line.split()[-1] for line in lines] == ["gate", "ok", "ok", "ok"]
    said = shell(fresh.root, "dayfold", "report")
    assert "no pictures from 3 of 3 days: their images are not here yet; dvc checkout ||" in said
    said = shell(fresh.root, "dayfold", "check")
    assert "not here yet; the remote store has it" in said
    assert "to get it: dvc pull\n" in said
    found = verify(fresh, read_data=True)
    assert found.damage == []
    assert [one.fix for one in found.absent] == ["dvc pull", "dvc fetch --all-tags"]
    # These bring the one model that they need.
    image = next((digits / FOUR).rglob("*.png"))
    assert "model of" in shell(fresh.root, "dayfold", "predict", str(image), "--day", ONE)
    shell(fresh.root, "dayfold", "export", "model.safetensors", "--day", TWO)
    assert (fresh.root / "model.safetensors").is_file()
    shell(fresh.root, "dvc", "repro", "--pull", "--allow-missing")
    shell(fresh.root, "dvc", "pull", "data/model.safetensors")
    assert sha256_file(fresh.model) == sha256_file(shared.model)
    branch = vcs.branch(fresh.root)
    shell(fresh.root, "git", "checkout", "--quiet", f"day/{TWO}")
    shell(fresh.root, "dvc", "pull")
    lock = pins.outputs(fresh.dvc_lock.read_bytes())
    assert md5_file(fresh.model) == lock["data/model.safetensors"]
    recorded = json.loads(fresh.provenance.read_bytes())
    assert (recorded["day"], recorded["sha256"]["model"]) == (TWO, sha256_file(fresh.model))
    assert "up to date" in shell(fresh.root, "dvc", "repro")
    new = vcs.git(fresh.root, "status", "--porcelain").splitlines()
    assert all(line.startswith("?? model.") for line in new)  # what was exported
    shell(fresh.root, "git", "checkout", "--quiet", branch)
    shell(fresh.root, "dvc", "pull")
    assert "next    dayfold add FOLDER" in shell(fresh.root, "dayfold", "status")
    shell(fresh.root, "dvc", "fetch", "--all-tags")
    found = verify(fresh, read_data=True)
    assert (found.damage, found.absent) == ([], [])


def test_what_was_never_pushed_is_told_with_the_clone_to_push_it_from(copy, tmp_path, shell):
    shell(copy.root, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    shell(copy.root, "git", "commit", "--quiet", "--all", "--message", "Share")
    shell(tmp_path, "git", "clone", "--quiet", str(copy.root), "fresh")
    fresh = Project(tmp_path / "fresh")
    # Days of before the remote are passed over: both ways DVC finds nothing to do.
    shell(copy.root, "dvc", "push")
    assert "up to date" in shell(copy.root, "dvc", "push", "--all-tags")
    shell(fresh.root, "dvc", "pull")
    assert "up to date" in shell(fresh.root, "dvc", "fetch", "--all-tags")
    [(days, what, hint)] = verify(fresh, read_data=True).damage
    assert days == f"{ONE} to {TWO}"
    assert what.startswith("not here, and never pushed to the remote store: data/weights.csv, ")
    push = "dayfold check --fix; dvc push --all-tags"
    assert hint.startswith(f"in the clone that sealed it: {push}; or make it again here")
    said = shell(copy.root, "dayfold", "check", code=1)
    assert f"set up after {ONE} was sealed, so that dvc push and dvc fetch --all-tags pass" in said
    assert f"store does not have all of {ONE} to {TWO} yet; to push it: dvc push" in said
    shell(copy.root, "sh", "-c", push)
    assert "store has all that this machine has" in shell(copy.root, "dayfold", "check")
    found = verify(fresh, read_data=False)
    assert found.damage == []
    [(_, what, hint)] = found.absent
    assert what.startswith("not here yet; the remote store has it")
    shell(fresh.root, "sh", "-c", hint)
    assert verify(fresh, read_data=False).absent == []


def test_a_seal_says_what_to_push_and_the_first_without_a_remote_that_nothing_leaves(
    copy, tmp_path, shell
):
    assert [*sealing.afterwards(copy)] == []  # it was said after the first
    shell(copy.root, "git", "tag", "--delete", f"day/{TWO}", f"day/{THREE}")
    assert "Nothing leaves this machine" in next(sealing.afterwards(copy))
    shell(copy.root, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    assert [*sealing.afterwards(copy)] == ["next: dayfold check --fix; dvc push --all-tags"]
    storage.hold_everywhere(copy.root)
    assert [*sealing.afterwards(copy)] == ["next: dvc push"]
    shell(copy.root, "git", "remote", "add", "origin", "../shared.git")
    assert [*sealing.afterwards(copy)] == ["next: dvc push && git push --follow-tags"]


def test_a_clone_without_tags_or_branch_says_how_to_get_them(shared, tmp_path, shell):
    shallow = clone(shared, tmp_path / "shallow", "--depth", "1", "--no-tags")
    said = shell(shallow.root, "dayfold", "add", "--day", FOUR, code=1)
    assert f"{THREE} is committed, but has no tag day/{THREE} here" in said
    assert "git fetch --unshallow --tags" in said
    assert "git fetch --unshallow --tags" in shell(shallow.root, "dayfold", "seal", code=1)
    said = shell(shallow.root, "dayfold", "check", code=1)
    assert "a shallow clone: --unshallow --tags" in said
    assert "was set up after" not in said
    shell(shallow.root, "git", "fetch", "--quiet", "--unshallow", "--tags")
    shell(shallow.root, "git", "tag", "--delete", f"day/{TWO}")
    said = shell(shallow.root, "dayfold", "check", code=1)
    assert f"{TWO}: the tag day/{TWO} is missing" in said
    assert "git fetch --tags" in said
    shell(shallow.root, "git", "fetch", "--quiet", "--tags")
    shell(shallow.root, "dvc", "pull")
    shell(shallow.root, "dayfold", "check")
    branch = vcs.branch(shallow.root)
    shell(shallow.root, "git", "checkout", "--quiet", "--detach")
    said = shell(shallow.root, "dayfold", "add", "--day", FOUR, code=1)
    assert "No branch is checked out (a detached HEAD)" in said
    assert f"git checkout {branch} && dvc checkout" in said
    for words in (("undo", "--yes"), ("undo", "--seal", "--yes")):
        said = shell(shallow.root, "dayfold", *words, code=1)
        assert "No branch is checked out (a detached HEAD)" in said
    shell(shallow.root, "git", "checkout", "--quiet", branch)
    shell(shallow.root, "dayfold", "add", "--day", FOUR)


def test_two_clones_that_sealed_the_same_day_are_told_and_one_gives_way(
    shared, tmp_path, shell, digits
):
    shutil.copytree(shared.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    shared = Project(tmp_path / shared.root.name)
    # On a dirty tree: what is not the project's own is left alone.
    (shared.root / "README.md").write_text("mine")
    (shared.root / "notes.txt").write_text("mine")
    other = clone(shared, tmp_path / "other")
    shell(other.root, "dvc", "pull")
    halves = {}
    for number, project in enumerate((shared, other)):
        half = halves[project.root] = tmp_path / f"half{number}"
        for path in sorted((digits / FOUR).rglob("*.png"))[number::2]:
            target = half / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        shell(project.root, "dayfold", "run", str(half), "--day", FOUR)
    assert vcs.git(shared.root, "status", "--porcelain") == " M README.md\n?? notes.txt\n"
    shell(shared.root, "dvc", "push")
    shell(shared.root, "git", "push", "--quiet", "--follow-tags")
    assert "rejected" in shell(other.root, "git", "push", "--follow-tags", code=1)
    shell(other.root, "git", "fetch", "--quiet")
    said = shell(other.root, "dayfold", "add", "--day", FIVE, code=1)
    assert "The upstream branch has 1 commits that this clone has not" in said
    assert "docs/operations.md, two clones that sealed" in said
    # The way on of docs/operations.md, word by word.
    shell(other.root, "dayfold", "undo", "--seal", "--yes")
    shell(other.root, "dayfold", "undo", "--yes")
    shell(other.root, "git", "pull", "--quiet", "--ff-only", "--tags")
    shell(other.root, "dvc", "pull")
    said = shell(other.root, "dayfold", "check", "--read-data")
    assert f"4 days from {ONE} to {FOUR}: nothing damaged" in said
    # With `run` it would be sealed too; that is three seconds of text and ten of training more.
    said = shell(other.root, "dayfold", "add", f"data/undone/{FOUR}/images/{FOUR}", "--day", FIVE)
    count = sum(1 for _ in halves[other.root].rglob("*.png"))
    assert re.search(rf"^added +{count}\b", said, re.MULTILINE)
