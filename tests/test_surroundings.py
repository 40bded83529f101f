"""git and DVC as people have them: settings, hooks, branches, rebases, merges, experiments."""

import os
import re
import shutil
import subprocess

import pytest

from builders import RealProject, place
from dayfold.demo import DAYS
from dayfold.project import params, pins, storage, vcs
from dayfold.project.files import md5

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]

# What people set, each of which changes what git prints.
SETTINGS = {
    "alias.tag": "log",
    "color.ui": "always",
    "column.ui": "always",
    "core.excludesFile": "ignored",
    "core.pager": "false",
    "core.quotePath": "true",
    "diff.external": "false",
    "diff.mnemonicPrefix": "true",
    "diff.noprefix": "true",
    "diff.orderFile": "/nowhere",
    "diff.relative": "true",
    "diff.renames": "copies",
    "log.decorate": "full",
    "log.showSignature": "true",
    "pager.tag": "true",
    "status.branch": "true",
    "status.relativePaths": "false",
    "status.short": "true",
    "status.showUntrackedFiles": "no",
    "tag.sort": "-creatordate",
}


@pytest.fixture
def images(tmp_path):
    place(tmp_path / "in", "cyst", range(5000, 5004))
    return tmp_path / "in"


def test_no_setting_of_git_changes_what_is_read_or_sealed(copy, shell, tmp_path):
    (tmp_path / "ignored").write_text("data/\n*.csv\n*.lock\n*.dvc\n")
    config = tmp_path / "gitconfig"
    for key, value in SETTINGS.items():
        value = str(tmp_path / "ignored") if key == "core.excludesFile" else value
        shell(tmp_path, "git", "config", "--file", str(config), key, value)
    mine = {"GIT_CONFIG_GLOBAL": str(config), "LANG": "de_DE.UTF-8"}
    before = copy.git("rev-parse", "HEAD^{tree}")
    assert copy.dayfold("status", **mine) == copy.dayfold("status")
    copy.dayfold("undo", "--yes", **mine)
    assert "next    dayfold diff, then dayfold seal" in copy.dayfold("status", **mine)
    assert f"sealed as day/{THREE}" in copy.dayfold("seal", **mine)
    assert copy.git("rev-parse", "HEAD^{tree}") == before
    assert "nothing damaged" in copy.dayfold("check", **mine)


def test_a_repository_that_the_environment_names_is_never_touched(copy, shell, tmp_path):
    other = tmp_path / "other"
    shell(tmp_path, "git", "init", "--quiet", "other")
    shell(other, "git", "commit", "--quiet", "--allow-empty", "-m", "x")
    inherited = {
        "GIT_DIR": str(other / ".git"),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
        "GIT_WORK_TREE": str(other),
        "GIT_OBJECT_DIRECTORY": str(other / ".git" / "objects"),
        "GIT_COMMON_DIR": str(other / ".git"),
        "GIT_PREFIX": "elsewhere/",
        "GIT_NAMESPACE": "elsewhere",
        "GIT_LITERAL_PATHSPECS": "1",
    }
    copy.dayfold("undo", "--yes", **inherited)
    assert f"sealed as day/{THREE}" in copy.dayfold("seal", **inherited)
    assert shell(other, "git", "rev-list", "--count", "--all") == "1\n"
    assert shell(other, "git", "tag") == ""
    # From a hook of another repository's worktree, which exports its own.
    shell(other, "git", "worktree", "add", "--quiet", str(tmp_path / "tree"))
    hook(other, "post-commit", f"cd {copy.root} && dayfold status > {tmp_path}/said")
    shell(tmp_path / "tree", "git", "commit", "--quiet", "--allow-empty", "-m", "y")
    assert "sealed  3 days" in (tmp_path / "said").read_text()


def test_a_project_below_the_top_of_a_repository_is_refused_and_can_be_cut_out(
    copy, shell, tmp_path
):
    shell(tmp_path, "git", "init", "--quiet", "all")
    shell(tmp_path / "all", "git", "commit", "--quiet", "--allow-empty", "-m", "first")
    branch = vcs.branch(copy.root)
    shell(tmp_path / "all", "git", "subtree", "add", "--prefix", "my lab", str(copy.root), branch)
    for words in (("status",), ("add", "."), ("snapshot",)):
        said = shell(tmp_path / "all" / "my lab", "dayfold", *words, code=1)
        assert "is the folder my lab of the git repository" in said
    command = said.rpartition("→ ")[2].strip()
    shell(tmp_path / "all" / "my lab", "sh", "-c", command)
    cut = RealProject(tmp_path / "my lab")
    cut.git("fetch", "--quiet", "--tags", str(copy.root))
    (copy.root / ".dvc" / "cache").rename(cut.root / ".dvc" / "cache")
    cut.dvc("checkout")
    assert f"{THREE}, sealed" in cut.dayfold("status")


def test_a_seal_that_was_amended_or_rebased_is_told_and_tagged_again(copy, shell, tmp_path):
    what = f"day/{THREE} is on a commit that is no longer on this branch"
    kept = copy.git("tag", "--list", "--format=%(contents)", f"day/{THREE}")
    copy.git("commit", "--quiet", "--amend", "-m", "better words")
    assert what in copy.dayfold("status")
    for words in (("check",), ("add", "--day", FOUR), ("undo", "--yes")):
        assert what in copy.dayfold(*words, code=1)
    # A colleague who has the branch and not the tag.
    mate = tmp_path / "mate"
    shell(tmp_path, "git", "clone", "--quiet", "--no-tags", str(copy.root), "mate")
    for day in (ONE, TWO):
        shell(mate, "git", "fetch", "--quiet", "origin", f"refs/tags/day/{day}:refs/tags/day/{day}")
    said = shell(mate, "dayfold", "status")
    assert f"{THREE} is committed, but has no tag day/{THREE} here" in said
    assert "git fetch --tags; if that brings none: dayfold seal" in said
    for how in ("amend", "rebase"):
        if how == "rebase":
            copy.git("checkout", "--quiet", "-b", "upstream", "HEAD^")
            (copy.root / "README.md").write_text("more")
            copy.git("commit", "--quiet", "-am", "readme")
            copy.git("checkout", "--quiet", "-")
            copy.git("rebase", "--quiet", "upstream")
            assert what in copy.dayfold("status")
        assert f"sealed as day/{THREE}" in copy.dayfold("seal")
        new = copy.git("rev-parse", f"day/{THREE}^{{commit}}")
        assert new == copy.git("rev-parse", "HEAD")
        made = copy.git("tag", "--list", "--format=%(contents)", f"day/{THREE}")
        assert made.strip() == kept.strip()
        assert f"{THREE}, sealed" in copy.dayfold("status")
    assert "nothing damaged" in copy.dayfold("check")


def test_days_of_a_squash_merge_are_joined_to_the_branch_by_the_command_that_is_told(copy):
    branch = vcs.branch(copy.root)
    copy.git("checkout", "--quiet", "-b", "work")
    copy.git("branch", "--quiet", "--force", branch, f"day/{ONE}")
    copy.git("checkout", "--quiet", branch)
    copy.git("merge", "--quiet", "--squash", "work")
    copy.git("commit", "--quiet", "-m", "two days at once")
    assert f"day/{TWO} is on a commit that is no longer on this branch" in copy.dayfold("status")
    said = copy.dayfold("seal", code=1)
    assert "its params.yaml names another day" in said
    command = said.rpartition("git merge")[2].split()
    copy.git("merge", *command, "-m", "Join what was sealed")
    assert f"sealed as day/{THREE}" in copy.dayfold("seal")
    assert "sealed  3 days" in copy.dayfold("status")
    assert "nothing damaged" in copy.dayfold("check")


def test_another_history_goes_on_from_an_older_day_beside_the_first_and_edits_are_found(
    copy, images
):
    branch = vcs.branch(copy.root)
    copy.git("checkout", "--quiet", "--orphan", "other")
    for said in (copy.dayfold("status"), copy.dayfold("seal", code=1)):
        assert f"{THREE} is sealed on another line of history" in said
        assert f"git checkout {branch} && dvc checkout" in said
    assert vcs.sealed_days(copy.root) == []
    copy.git("checkout", "--quiet", branch)
    assert "sealed  3 days" in copy.dayfold("status")
    copy.git("checkout", "--quiet", "-b", "mine", f"day/{TWO}")
    image = sorted(copy.images(THREE).rglob("*.png"))[0]
    image.chmod(0o644)
    image.write_bytes(image.read_bytes() + b"edited")
    assert "sealed  2 days" in copy.dayfold("status")
    copy.git("checkout", "--quiet", branch)
    assert f"{copy.name(image)} was changed" in copy.dayfold("status")
    copy.dvc("checkout", "--force")
    copy.git("checkout", "--quiet", "mine")
    copy.dvc("checkout")
    assert "sealed  2 days" in copy.dayfold("status")
    said = copy.dayfold("add", str(images), "--day", THREE, code=1)
    assert f"{THREE} is sealed on another line of history" in said
    assert f"git checkout {branch} && dvc checkout" in said
    assert "next: dvc repro" in copy.dayfold("add", str(images), "--day", FOUR)
    assert f"{FOUR}, open; parent {TWO}" in copy.dayfold("status")
    copy.dayfold("undo", "--yes")
    said = copy.dayfold("undo", "--yes", code=1)
    assert f"The seal of {TWO} is on other branches too: {branch}" in said
    copy.git("checkout", "--quiet", branch)
    copy.dvc("checkout")
    assert "sealed  3 days" in copy.dayfold("status")


def test_a_merge_in_conflict_is_named_by_every_command_and_nothing_is_written(copy, images):
    ours = vcs.branch(copy.root)
    copy.git("branch", "theirs", f"day/{TWO}")
    for text, branch in (("theirs", "theirs"), ("ours", ours)):
        copy.git("checkout", "--quiet", branch)
        for path in (copy.dvc_lock, copy.metrics):
            path.write_text(path.read_text() + f"# {text}\n")
        copy.git("commit", "--quiet", "-am", text)
    merge = ["git", "merge", "--quiet", "theirs"]
    assert subprocess.run(merge, cwd=copy.root, capture_output=True).returncode
    before = copy.git("status", "--porcelain")
    # One of each kind: what writes, looks back, checks, makes again, uses a model, is a stage.
    for words in (
        ("add", str(images), "--day", FOUR),
        ("log",),
        ("check", "--fix"),
        ("reproduce", "--all"),
        ("predict", str(images)),
        ("curve",),
    ):
        said = copy.dayfold(*words, code=1)
        assert "A merge is under way in this project" in said
        assert "git merge --abort" in said
    said = copy.dayfold("status")
    assert "A merge is under way in this project, and 2 of its files are in conflict:" in said
    assert "  - dvc.lock" in said
    assert "next    to take it back: git merge --abort;" in said
    assert copy.git("status", "--porcelain") == before
    copy.git("checkout", "--ours", "dvc.lock", "metrics.json")
    copy.git("add", "dvc.lock", "metrics.json")
    assert "to go on: git merge --continue" in copy.dayfold("add", "--day", FOUR, code=1)
    copy.dayfold("log")
    copy.git("merge", "--abort")
    assert "under way" not in copy.dayfold("status")
    # A revert may have params.yaml in conflict.
    assert "params.yaml" in copy.git("revert", "--no-edit", f"day/{TWO}", code=1)
    said = copy.dayfold("status", code=1)
    assert "A revert is under way in this project" in said
    assert "git revert --abort" in said


def test_an_open_day_is_tried_in_a_temporary_folder_and_the_queue_and_a_stash_loses_nothing(
    copy, images
):
    copy.dayfold("add", str(images), "--day", FOUR)
    before = copy.git("status", "--porcelain")
    copy.git("stash", "push", "--quiet")
    said = copy.dayfold("check", "--fix", code=1)
    assert f"data/images/{FOUR} holds 4 images that belong to no day" in said
    copy.git("stash", "pop", "--quiet", "--index")
    assert copy.git("status", "--porcelain") == before
    assert f"{FOUR}, open" in copy.dayfold("status")
    assert len(list(copy.images(FOUR).rglob("*.png"))) == 4
    # In place it takes the day's files out of git's index.
    copy.dvc("exp", "run", "-S", "replay.size=7", "replay")
    assert f"{FOUR}, open" in copy.dayfold("status")
    for how, size in (("--temp", 5), ("--queue", 6)):
        copy.dvc("exp", "run", how, "-S", f"replay.size={size}", "replay")
    copy.dvc("exp", "run", "--run-all")
    names = copy.dvc("exp", "list", "--name-only").split()
    sizes = set()
    for name in names:
        copy.dvc("exp", "apply", name)
        sizes.add(params.read(copy.params).replay.size)
        assert copy.manifest(FOUR).read_text().count("add,") == 4
        assert f"{FOUR}, open" in copy.dayfold("status")
    assert sizes == {5, 6, 7}


def hook(repository, name: str, *lines: str):
    path = repository / ".git" / "hooks" / name
    path.write_text("\n".join(("#!/bin/sh", *lines)))
    path.chmod(0o755)
    return path


def test_hooks_that_refuse_or_change_a_commit_and_a_missing_key_seal_nothing(copy):
    copy.dayfold("undo", "--seal", "--yes")
    before = copy.git("rev-parse", "HEAD")
    changes, told = f"echo >> data/manifests/{THREE}.csv", f"A git hook changed files of {THREE}"
    for lines, said in (
        (("echo no commits today", "exit 1"), "no commits today"),
        ((changes, "git add data"), told),
        ((changes, "exit 1"), told),
    ):
        made = hook(copy.root, "pre-commit", *lines)
        found = copy.dayfold("seal", code=1)
        assert said in found
        assert (f"data/manifests/{THREE}.csv" in found) == (said == told)
        assert copy.git("rev-parse", "HEAD") == before
        found = copy.dayfold("status")
        assert "next    dayfold diff, then dayfold seal" in found
        assert "did not end" not in found
    made.unlink()
    key = {"commit.gpgSign": "true", "gpg.program": "false"}
    for name, value in key.items():
        copy.git("config", name, value)
    said = copy.dayfold("seal", code=1)
    assert "failed to sign" in said
    assert "git config commit.gpgSign false" in said
    assert max(map(len, said.splitlines())) < 160
    copy.git("config", "gpg.format", "ssh")
    assert "git config commit.gpgSign false" in copy.dayfold("seal", code=1)
    copy.git("config", "commit.gpgSign", "false")
    # A hook that adds words: undo takes such a commit back.
    words = ("sed -i '1s/^/SCAN-7 /' $1", "echo 'Change-Id: I7' >> $1")
    made = hook(copy.root, "commit-msg", *words)
    copy.dayfold("seal")
    assert copy.git("log", "-1", "--format=%s").startswith("SCAN-7 day ")
    assert "its tag and commit are removed" in copy.dayfold("undo", "--seal", "--yes")
    assert copy.git("rev-parse", "HEAD") == before
    made.unlink()
    assert "sealed as" in copy.dayfold("seal")
    assert "nothing damaged" in copy.dayfold("check")


def test_a_pipe_among_the_images_is_told_and_warnings_that_are_errors_do_not_stop_dvc(copy, images):
    words = ("dayfold", "add", str(images), "--day", FOUR)
    assert f"opened {FOUR}" in copy.shell(*words, PYTHONWARNINGS="error")
    pipe = f"data/images/{FOUR}/cyst/pipe.png"
    os.mkfifo(copy.root / pipe)
    run, add = ((word, str(images), "--day", FOUR) for word in ("run", "add"))
    for words in (("status",), ("seal",), run, add):
        said = copy.dayfold(*words, code=1)
        assert f"{pipe} is a pipe or a socket" in said
        assert f"rm -- {pipe}" in said
    copy.dayfold("undo", "--yes")


def test_a_project_that_came_back_without_dvc_s_cache_loses_nothing_to_the_next_day(copy, images):
    shutil.rmtree(copy.root / ".dvc" / "cache")
    files = (copy.replay, copy.weights, copy.shares, copy.model, copy.predictions)
    before = [path.read_bytes() for path in (*files, copy.parent_model)]
    said = copy.dayfold("check", code=1)
    assert f"{THREE}: in data/ only, not in DVC's cache: data/weights.csv" in said
    assert "to get it: dvc commit --force weights replay train evaluate" in said
    assert "in data/ only, not in DVC's cache, so no push takes it: data/images/" in said
    copy.sh("-c", re.search("→ (dvc commit --force data/images/.*)", said)[1])
    assert "so no push takes it" not in copy.dayfold("check", code=1)
    copy.dayfold("add", str(images), "--day", FOUR)
    copy.dayfold("undo", "--yes")
    assert [path.read_bytes() for path in (*files, copy.parent_model)] == before
    assert f"day     {THREE}, sealed" in copy.dayfold("status")
    assert copy.git("status", "--porcelain") == ""


def test_a_day_with_a_frozen_stage_or_of_images_that_dvc_is_told_to_ignore_is_not_sealed(
    copy, images
):
    text = copy.dvc_yaml.read_text()
    copy.dayfold("undo", "--seal", "--yes")
    copy.dvc_yaml.write_text(text.replace("\n  train:\n", "\n  train:\n    frozen: true\n"))
    for word in ("status", "seal"):
        assert "dvc.yaml has frozen: true for train" in copy.dayfold(word, code=1)
    copy.dvc_yaml.write_text(text)
    assert f"sealed as day/{THREE}" in copy.dayfold("seal")
    (copy.root / ".dvcignore").write_text("*.png\n")
    copy.dayfold("add", str(images), "--day", FOUR)
    copy.dvc("repro")
    said = copy.dayfold("seal", code=1)
    assert f"DVC keeps 0 of the 4 files in data/images/{FOUR}: .dvcignore" in said
    (copy.root / ".dvcignore").write_text("")
    copy.dvc("repro")
    assert f"sealed as day/{FOUR}" in copy.dayfold("seal")


def test_what_git_is_told_not_to_look_at_is_sealed_as_it_is(copy, shell):
    shell(copy.root, "dayfold", "undo", "--seal", "--yes")
    before = copy.params.read_bytes(), copy.dvc_lock.read_bytes()
    shell(copy.root, "git", "update-index", "--assume-unchanged", "params.yaml")
    shell(copy.root, "git", "update-index", "--skip-worktree", "dvc.lock")
    assert f"sealed as day/{THREE}" in shell(copy.root, "dayfold", "seal")
    assert (copy.params.read_bytes(), copy.dvc_lock.read_bytes()) == before
    assert "nothing damaged" in shell(copy.root, "dayfold", "check")


def test_a_new_project_keeps_an_index_that_dvc_reads_whatever_a_person_asks_for(
    shell, images, tmp_path
):
    config = tmp_path / "gitconfig"
    config.write_text("[core]\nsplitIndex = true\n[index]\nskipHash = true\n")
    mine = {"GIT_CONFIG_GLOBAL": str(config)}
    shell(tmp_path, "dayfold", "init", "new", "--weights", "random", "--image-size", "16", **mine)
    shell(tmp_path / "new", "git", "rm", "--quiet", "--cached", "README.md", **mine)
    shell(tmp_path / "new", "git", "add", "README.md", **mine)
    assert b"link" not in (tmp_path / "new" / ".git" / "index").read_bytes()  # of a split one
    shell(tmp_path / "new", "dayfold", "add", str(images), "--day", FOUR, **mine)
    assert "next    dvc repro" in shell(tmp_path / "new", "dayfold", "status", **mine)


@pytest.mark.parametrize("options", [(), ("--move",)])
def test_images_are_kept_by_dvc_as_they_are_added(copy, images, options):
    copy.dayfold("add", str(images), "--day", FOUR, *options)
    assert len(list(images.rglob("*.png"))) == (0 if options else 4)
    copy.dvc("checkout", "--force")
    assert len(list(copy.images(FOUR).rglob("*.png"))) == 4


def test_a_second_worktree_is_told_how_to_use_the_cache_of_the_first(copy, tmp_path, images):
    copy.git("worktree", "add", "--quiet", "-b", "mine", str(tmp_path / "second tree"))
    second = RealProject(tmp_path / "second tree")
    assert "next    dvc checkout || dvc pull || dayfold check" in second.dayfold("status")
    (second.root / "own.txt").write_text("own")
    second.dvc("add", "own.txt")
    said = second.dayfold("check")
    assert "not here; the cache of the main worktree has it: data/images" in said
    second.sh("-c", re.search("to get it: (.*)", said)[1])
    assert "nothing damaged" in second.dayfold("check")
    assert storage.has(copy.root, [md5(b"own")])
    assert f"opened {FOUR}" in second.dayfold("add", str(images), "--day", FOUR)


def test_images_that_dvc_cannot_keep_are_told_to_be_in_and_kept_by_the_same_command(copy, images):
    cache = copy.root / ".dvc" / "cache"
    copy.dayfold("add", "--day", FOUR)
    kept = cache.rename(copy.root / "kept")
    cache.symlink_to("nowhere")
    said = copy.dayfold("add", str(images), "--day", FOUR, code=1)
    assert f"The images are in data/images/{FOUR}, but DVC's cache has no copy" in said
    cache.unlink()
    kept.rename(cache)
    copy.dayfold("add", str(images), "--day", FOUR)
    copy.dvc("checkout", "--force")
    assert len(list(copy.images(FOUR).rglob("*.png"))) == 4


@pytest.mark.cold
def test_too_little_memory_is_told_in_two_lines(copy, shell):
    for command in ("predict .", "train"):
        said = shell(copy.root, "sh", "-c", f"ulimit -v 500000; exec dayfold {command}", code=1)
        assert "There is too little memory" in said
        assert "Traceback" not in said


def test_the_moved_tag_of_an_old_day_is_told_with_the_way_back(copy):
    copy.git("tag", "--force", "--annotate", "-m", "x", f"day/{ONE}", f"day/{THREE}")
    for command, code in (("check", 1), ("log", 0)):
        said = copy.dayfold(command, code=code)
        assert f"The tag day/{ONE} was moved: to a commit whose params.yaml says {THREE}" in said
        way = re.search(r"→ (git tag .*); or", said)[1]
    copy.sh("-c", way)
    assert "nothing damaged" in copy.dayfold("check")


def test_a_branch_that_is_called_as_a_tag_is_no_other_branch(copy):
    copy.git("branch", "--move", f"day/{THREE}")
    assert f"{THREE} is open again" in copy.dayfold("undo", "--yes")


def test_a_partial_clone_without_its_server_is_not_taken_for_a_moved_tag(copy, shell, tmp_path):
    server, clone = tmp_path / "server", tmp_path / "clone"
    copy.git("clone", "--quiet", "--bare", ".", str(server))
    shell(server, "git", "config", "uploadpack.allowFilter", "true")
    words = ("clone", "--quiet", "--filter=blob:none", f"file://{server}", str(clone))
    copy.git(*words)
    server.rename(tmp_path / "gone")
    said = shell(clone, "dayfold", "status", code=1)
    assert "was moved" not in said
    assert "from promisor remote" in said
    (tmp_path / "gone").rename(server)
    assert "sealed  3 days" in RealProject(clone).dayfold("status")


def test_attributes_above_the_project_s_own_and_damage_that_an_undo_brings_back_are_told(copy):
    own, told = copy.root / ".git" / "info" / "attributes", "other attributes let git change"
    for line in ("*.csv text eol=crlf", "*.csv !text", "dvc.lock filter=lfs"):
        own.write_text(f"{line}\n")
        assert told in copy.dayfold("check", code=1)
    own.write_text("*.csv diff=csv\n")
    assert "git neither changes nor ignores hashed files" in copy.dayfold("check")
    key = pins.outputs(copy.dvc_lock.read_bytes())["data/predictions.csv"]
    kept = storage.object_path(copy.root, key)
    for path in (kept, copy.predictions):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data + b"x")
        path.chmod(0o444)
    said = copy.dayfold("undo", "--yes", code=1)
    assert "is not as it was sealed: data/predictions.csv" in said
    assert "dayfold check --read-data" in said
