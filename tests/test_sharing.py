"""Several clones of one history: what each refuses, and the way on that it tells."""

import json
import re
import shutil

import pytest

from builders import RealProject
from dayfold.cycle import sealing
from dayfold.demo import DAYS
from dayfold.project import pins, storage, vcs
from dayfold.project.files import md5_file, sha256_file
from dayfold.proof.verify import verify

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]


@pytest.fixture(scope="module")
def shared(three_days, tmp_path_factory, share):
    """The three days with a git remote and a DVC remote, both folders beside it; pushed."""
    return share(three_days, tmp_path_factory.mktemp("shared"), "../store")


def clone(shared, folder, *words) -> RealProject:
    url = f"file://{shared.root.parent / 'shared.git'}"
    vcs.git(shared.root.parent, "clone", "--quiet", *words, url, str(folder))
    # Days of before there was a remote know it only from here.
    vcs.dvc(folder, "remote", "add", "--local", "-d", "store", str(shared.root.parent / "store"))
    return RealProject(folder)


def test_a_clone_says_what_is_not_here_and_gets_any_day_and_runs_today(shared, tmp_path, digits):
    fresh = clone(shared, tmp_path / "fresh")
    gone = f"{THREE} is sealed, but not here yet: data/model.safetensors, data/predictions.csv."
    get = "dvc checkout || dvc pull || dayfold check\n"
    assert f"{gone}\nnext    {get}" in fresh.dayfold("status")
    said = fresh.dayfold("add", str(digits / FOUR), "--day", FOUR, code=1)
    assert f"{gone}\n→ {get}" in said
    said = fresh.dayfold("audit", code=1)
    assert f"data/model.safetensors is not here yet.\n→ {get}" in said
    said = fresh.dayfold("log").splitlines()
    lines = said[:4]
    assert said[-1].startswith("Too few test images to judge these classes: 0 (18 images), ")
    assert [line.split()[0] for line in lines] == ["day", ONE, TWO, THREE]
    assert lines[2].split()[2:4] == ["7", "+6"]
    assert max(map(len, lines)) <= 100
    assert [line.split()[-1] for line in lines] == ["gate", "ok", "ok", "ok"]
    said = fresh.dayfold("report")
    assert "no pictures from 3 of 3 days: their images are not here yet; dvc checkout ||" in said
    said = fresh.dayfold("check")
    assert "not here yet; the remote store has it" in said
    assert "to get it: dvc pull\n" in said
    found = verify(fresh, read_data=True)
    assert found.damage == []
    assert [one.fix for one in found.absent] == ["dvc pull", "dvc fetch --all-tags"]
    # These bring the one model that they need.
    image = next((digits / FOUR).rglob("*.png"))
    assert "model of" in fresh.dayfold("predict", str(image), "--day", ONE)
    fresh.dayfold("export", "model.safetensors", "--day", TWO)
    assert (fresh.root / "model.safetensors").is_file()
    fresh.dvc("repro", "--pull", "--allow-missing")
    fresh.dvc("pull", "data/model.safetensors")
    assert sha256_file(fresh.model) == sha256_file(shared.model)
    branch = vcs.branch(fresh.root)
    fresh.git("checkout", "--quiet", f"day/{TWO}")
    fresh.dvc("pull")
    lock = pins.outputs(fresh.dvc_lock.read_bytes())
    assert md5_file(fresh.model) == lock["data/model.safetensors"]
    recorded = json.loads(fresh.provenance.read_bytes())
    assert (recorded["day"], recorded["sha256"]["model"]) == (TWO, sha256_file(fresh.model))
    assert "up to date" in fresh.dvc("repro")
    new = vcs.git(fresh.root, "status", "--porcelain").splitlines()
    assert all(line.startswith("?? model.") for line in new)  # what was exported
    fresh.git("checkout", "--quiet", branch)
    fresh.dvc("pull")
    assert "next    dayfold add FOLDER" in fresh.dayfold("status")
    fresh.dvc("fetch", "--all-tags")
    found = verify(fresh, read_data=True)
    assert (found.damage, found.absent) == ([], [])


def test_what_was_never_pushed_is_told_with_the_clone_to_push_it_from(copy, tmp_path, shell):
    copy.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    copy.git("commit", "--quiet", "--all", "--message", "Share")
    shell(tmp_path, "git", "clone", "--quiet", str(copy.root), "fresh")
    fresh = RealProject(tmp_path / "fresh")
    # Days of before the remote are passed over: both ways DVC finds nothing to do.
    copy.dvc("push")
    assert "up to date" in copy.dvc("push", "--all-tags")
    fresh.dvc("pull")
    assert "up to date" in fresh.dvc("fetch", "--all-tags")
    [(days, what, hint)] = verify(fresh, read_data=True).damage
    assert days == f"{ONE} to {TWO}"
    assert what.startswith("not here, and never pushed to the remote store: data/weights.csv, ")
    push = "dayfold check --fix; dvc push --all-tags"
    assert hint.startswith(f"in the clone that sealed it: {push}; or make it again here")
    said = copy.dayfold("check", code=1)
    assert f"set up after {ONE} was sealed, so dvc push --all-tags and dvc fetch" in said
    assert f"store does not have all of {ONE} to {TWO} yet; to push it: dvc push" in said
    copy.sh("-c", push)
    assert "store has all that this machine has" in copy.dayfold("check")
    found = verify(fresh, read_data=False)
    assert found.damage == []
    [(_, what, hint)] = found.absent
    assert what.startswith("not here yet; the remote store has it")
    fresh.sh("-c", hint)
    assert verify(fresh, read_data=False).absent == []


def test_a_seal_says_what_to_push_and_the_first_without_a_remote_that_nothing_leaves(
    copy, tmp_path
):
    assert [*sealing.next_steps(copy)] == []  # it was said after the first
    copy.git("tag", "--delete", f"day/{TWO}", f"day/{THREE}")
    assert "There is no DVC remote" in next(sealing.next_steps(copy))
    copy.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    assert [*sealing.next_steps(copy)] == ["next: dayfold check --fix; dvc push --all-tags"]
    storage.configure_locally(copy.root)
    assert [*sealing.next_steps(copy)] == ["next: dvc push"]
    copy.git("init", "--quiet", "--bare", str(tmp_path / "shared.git"))
    copy.git("remote", "add", "origin", str(tmp_path / "shared.git"))
    push = "git push --follow-tags"
    assert [*sealing.next_steps(copy)] == [f"next: dvc push && {push}"]
    # `dvc push` would leave the models of all days but the last.
    copy.git("push", "--quiet", "--set-upstream", "origin", f"day/{ONE}^{{commit}}:refs/heads/main")
    copy.git("branch", "--set-upstream-to", "origin/main")
    copy.git("tag", f"day/{TWO}", "HEAD")
    copy.git("tag", f"day/{THREE}", "HEAD")
    assert [*sealing.next_steps(copy)] == [f"next: dvc push --all-tags && {push}"]


def test_a_clone_without_tags_or_branch_says_how_to_get_them(shared, tmp_path):
    shallow = clone(shared, tmp_path / "shallow", "--depth", "1", "--no-tags")
    said = shallow.dayfold("add", "--day", FOUR, code=1)
    assert f"{THREE} is committed, but has no tag day/{THREE} here" in said
    assert "git fetch --unshallow --tags" in said
    assert "git fetch --unshallow --tags" in shallow.dayfold("seal", code=1)
    said = shallow.dayfold("check", code=1)
    assert "a shallow clone: --unshallow --tags" in said
    assert "was set up after" not in said
    shallow.git("fetch", "--quiet", "--unshallow", "--tags")
    shallow.git("tag", "--delete", f"day/{TWO}")
    said = shallow.dayfold("check", code=1)
    assert f"{TWO}: the tag day/{TWO} is missing" in said
    assert "git fetch --tags" in said
    shallow.git("fetch", "--quiet", "--tags")
    shallow.dvc("pull")
    shallow.dayfold("check")
    branch = vcs.branch(shallow.root)
    shallow.git("checkout", "--quiet", "--detach")
    said = shallow.dayfold("add", "--day", FOUR, code=1)
    assert "No branch is checked out (a detached HEAD)" in said
    assert f"git checkout {branch} && dvc checkout" in said
    for words in (("undo", "--yes"), ("undo", "--seal", "--yes")):
        assert "No branch is checked out (a detached HEAD)" in shallow.dayfold(*words, code=1)
    shallow.git("checkout", "--quiet", branch)
    shallow.dayfold("add", "--day", FOUR)


def test_two_clones_that_sealed_the_same_day_are_told_and_one_gives_way(shared, tmp_path, digits):
    shutil.copytree(shared.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    shared = RealProject(tmp_path / shared.root.name)
    # On a dirty tree: what is not the project's own is left alone.
    (shared.root / "README.md").write_text("mine")
    (shared.root / "notes.txt").write_text("mine")
    other = clone(shared, tmp_path / "other")
    other.dvc("pull")
    halves = {}
    for number, project in enumerate((shared, other)):
        half = halves[project.root] = tmp_path / f"half{number}"
        for path in sorted((digits / FOUR).rglob("*.png"))[number::2]:
            target = half / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        project.dayfold("run", str(half), "--day", FOUR)
    assert vcs.git(shared.root, "status", "--porcelain") == " M README.md\n?? notes.txt\n"
    shared.dvc("push")
    shared.git("push", "--quiet", "--follow-tags")
    assert "rejected" in other.git("push", "--follow-tags", code=1)
    other.git("fetch", "--quiet")
    said = other.dayfold("add", "--day", FIVE, code=1)
    assert "The upstream branch has 1 commit that this clone lacks" in said
    assert "docs/operations.md, two clones that sealed" in said
    # The way on of docs/operations.md, word by word.
    other.dayfold("undo", "--seal", "--yes")
    other.dayfold("undo", "--yes")
    other.git("pull", "--quiet", "--ff-only", "--tags")
    other.dvc("pull")
    assert f"4 days from {ONE} to {FOUR}: nothing damaged" in other.dayfold("check", "--read-data")
    # With `run` it would be sealed too; that is three seconds of text and ten of training more.
    said = other.dayfold("add", f"data/undone/{FOUR}/images/{FOUR}", "--day", FIVE)
    count = sum(1 for _ in halves[other.root].rglob("*.png"))
    assert re.search(rf"^added +{count}\b", said, re.MULTILINE)
