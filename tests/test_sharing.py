"""Several clones of one history: what each refuses, and the way on that it tells."""

import re
import shutil

import pytest

from dayfold.demo import DAYS
from dayfold.project import vcs
from dayfold.project.files import md5_file, sha256_file
from dayfold.project.layout import Project

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]


@pytest.fixture
def shared(copy, tmp_path, shell):
    """The three days with a git remote and a DVC remote, both folders; pushed."""
    shell(tmp_path, "git", "init", "--quiet", "--bare", "shared.git")
    shell(copy.root, "git", "remote", "add", "origin", str(tmp_path / "shared.git"))
    for words in ((), ("--local",)):
        shell(copy.root, "dvc", "remote", "add", *words, "-d", "store", str(tmp_path / "store"))
    shell(copy.root, "git", "commit", "--quiet", "--all", "--message", "Share by a folder")
    shell(copy.root, "dvc", "push", "--all-tags")
    branch = vcs.branch(copy.root)
    shell(copy.root, "git", "push", "--quiet", "-u", "origin", branch, "--tags")
    vcs.git(tmp_path / "shared.git", "symbolic-ref", "HEAD", f"refs/heads/{branch}")
    return copy


def clone(shared, folder, *words) -> Project:
    url = f"file://{shared.root.parent / 'shared.git'}"
    vcs.git(shared.root.parent, "clone", "--quiet", *words, url, str(folder))
    # Days of before there was a remote know it only from here.
    vcs.dvc(folder, "remote", "add", "--local", "-d", "store", str(shared.root.parent / "store"))
    return Project(folder)


def test_a_fresh_clone_gets_any_day_and_runs_today(shared, tmp_path, shell):
    fresh = clone(shared, tmp_path / "fresh")
    shell(fresh.root, "dvc", "repro", "--pull", "--allow-missing")
    shell(fresh.root, "dvc", "pull", "data/model.safetensors")
    assert sha256_file(fresh.model) == sha256_file(shared.model)
    shell(fresh.root, "git", "checkout", "--quiet", f"day/{TWO}")
    shell(fresh.root, "dvc", "pull")
    lock = vcs.outputs(fresh.dvc_lock.read_bytes())
    assert md5_file(fresh.model) == lock["data/model.safetensors"]
    assert vcs.stale(fresh.root) == []


def test_without_a_branch_no_day_is_opened_or_sealed(copy, shell, tmp_path):
    branch = vcs.branch(copy.root)
    shell(copy.root, "git", "checkout", "--quiet", f"day/{THREE}")
    said = shell(copy.root, "dayfold", "open", FOUR, code=1)
    assert "No branch is checked out (a detached HEAD)" in said
    assert f"git checkout {branch} && dvc checkout" in said
    shell(copy.root, "git", "checkout", "--quiet", branch)
    shell(copy.root, "dvc", "checkout")
    shell(copy.root, "dayfold", "open", FOUR)


def test_a_shallow_clone_without_tags_says_how_to_get_them(shared, tmp_path, shell):
    shallow = clone(shared, tmp_path / "shallow", "--depth", "1", "--no-tags")
    said = shell(shallow.root, "dayfold", "open", FOUR, code=1)
    assert f"{THREE} is committed, but has no tag day/{THREE} here" in said
    assert "git fetch --unshallow --tags" in said
    assert "a shallow clone" in shell(shallow.root, "dayfold", "doctor", code=1)
    shell(shallow.root, "git", "fetch", "--quiet", "--unshallow", "--tags")
    shell(shallow.root, "dvc", "pull")
    shell(shallow.root, "dayfold", "open", FOUR)


def test_missing_tags_of_earlier_days_are_told_and_fetched(shared, tmp_path, shell):
    fresh = clone(shared, tmp_path / "fresh")
    shell(fresh.root, "git", "tag", "--delete", f"day/{TWO}")
    said = shell(fresh.root, "dayfold", "verify", code=1)
    assert f"{TWO}  the tag day/{TWO} is missing" in said
    assert "git fetch --tags" in said
    shell(fresh.root, "git", "fetch", "--quiet", "--tags")
    shell(fresh.root, "dayfold", "verify")


def test_two_clones_that_sealed_the_same_day_are_told_and_one_gives_way(
    shared, tmp_path, shell, digits
):
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
    said = shell(other.root, "dayfold", "open", FIVE, code=1)
    assert "The upstream branch has 1 commits that this clone has not" in said
    assert "docs/operations.md, two clones that sealed" in said
    # The way on of docs/operations.md, word by word.
    shell(other.root, "dayfold", "unseal")
    shell(other.root, "mv", f"data/images/{FOUR}", "../mine")
    shell(other.root, "git", "stash", "push", "--quiet", "--include-untracked")
    shell(other.root, "git", "pull", "--quiet", "--ff-only", "--tags")
    shell(other.root, "dvc", "pull", "--force")
    shell(other.root, "git", "stash", "drop", "--quiet")
    said = shell(other.root, "dayfold", "verify", "--read-data")
    assert f"4 days from {ONE} to {FOUR}: nothing damaged" in said
    # With `run` it would be sealed too; that is three seconds of text and ten of training more.
    said = shell(other.root, "dayfold", "add", "../mine", "--day", FIVE)
    count = sum(1 for _ in halves[other.root].rglob("*.png"))
    assert re.search(rf"^added +{count}\b", said, re.MULTILINE)
