"""A new project is right whatever the git of a person's own says, and says what it does."""

import subprocess
import sys
import time

import pytest

from builders import IDENTITY, make_project
from dayfold import create
from dayfold.errors import CycleError, ParamsError
from dayfold.project import params as params_file
from dayfold.project import template, vcs
from dayfold.project.layout import Project
from dayfold.proof import check

RANDOM = ("--weights", "random", "--image-size", "16")
# The hostile half of what people have in ~/.gitconfig and in the files that it names.
CONFIG = """\
[user]
    name = A Tester
    email = tester@example.org
[init]
    defaultBranch = trunk
    defaultObjectFormat = sha256
    defaultRefFormat = reftable
[core]
    autocrlf = true
    eol = crlf
    excludesFile = {folder}/ignore
    attributesFile = {folder}/attributes
[filter "shout"]
    smudge = tr a-z A-Z
    clean = tr A-Z a-z
"""
IGNORED = ".*\n*.csv\n*.dvc\n*.json\n*.lock\n*.yaml\ndata/\nimages\nREADME*\n"
ATTRIBUTES = "* text=auto eol=crlf\n*.csv filter=shout\n*.yaml ident\n"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The environment of a person with such a configuration."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "ignore").write_text(IGNORED)
    (folder / "attributes").write_text(ATTRIBUTES)
    (folder / "gitconfig").write_text(CONFIG.format(folder=folder))
    return {"GIT_CONFIG_GLOBAL": str(folder / "gitconfig")}


@pytest.fixture(scope="module")
def made(tmp_path_factory, shell, hostile):
    """A project made by the command line, what it said, and its environment."""
    folder = tmp_path_factory.mktemp("made")
    words = ("init", "scans", *RANDOM, "--remote", "store")
    said = shell(folder, "dayfold", *words, **hostile)
    return folder / "scans", said, hostile


def test_where_dvc_fails_on_the_path_nothing_is_made_or_found(tmp_path):
    folder = tmp_path / "{scans}"
    with pytest.raises(CycleError, match="the path has a brace"):
        create.init(folder, create.Options("random"))
    assert not folder.exists()
    make_project(folder).dvc_yaml.touch()
    with pytest.raises(CycleError, match="the path has a brace"):
        Project.find(folder)


@pytest.mark.slow
def test_a_new_project_is_whole_and_each_step_is_said_before_it_is_done(made, shell, tmp_path):
    root, said, environment = made
    assert shell(root, "git", "branch", "--show-current", **environment) == "main\n"
    # DVC reads no other; git obeys init.defaultObjectFormat since 2.47.
    assert shell(root, "git", "rev-parse", "--show-object-format", **environment) == "sha1\n"
    assert shell(root, "git", "status", "--porcelain", "--ignored", **environment) == (
        "!! .dvc/cache/\n!! .dvc/tmp/\n!! data/parent/\n"
    )
    kept = shell(root, "git", "ls-files", **environment).split()
    assert {"data/manifests/origin.csv", "data/parent.dvc", ".gitattributes"} < set(kept)
    assert check._git_files(root).hint == ""
    shell(tmp_path, "git", "clone", "--quiet", str(root), "clone", **environment)
    for name in kept:
        if name != "README.md":
            assert (tmp_path / "clone" / name).read_bytes() == (root / name).read_bytes(), name
    steps = ("making", "git,", "DVC: images", "weights:", "precision:")
    for line, begin in zip(said.splitlines(), steps, strict=False):
        assert line.startswith(begin)
    # Its remote is DVC's default, and can be pushed to.
    store = root.parent / "store"
    assert f"shared through {store}" in said
    listed = shell(root, "dvc", "remote", "list", **environment)
    assert listed.split() == ["store", str(store), "(default)"]
    shell(root, "dvc", "push", "--quiet", **environment)
    assert any(path.is_file() for path in store.rglob("*"))


def test_where_no_day_has_a_model_nothing_sends_for_one(made, shell):
    root, _, environment = made
    for words in (("audit",), ("predict", "."), ("export", "model.onnx")):
        said = shell(root, "dayfold", *words, code=1, **environment)
        assert said.startswith(("dayfold: No day has a model", "dayfold: No day is sealed"))
        assert "dayfold status" in said


@pytest.mark.cold
def test_the_first_line_comes_before_anything_is_done(tmp_path):
    began = time.monotonic()
    words = (sys.executable, "-m", "dayfold", "init", "scans", *RANDOM)
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "making a project in scans\n"
        seconds = time.monotonic() - began
        assert not (tmp_path / "scans").exists() or seconds < 0.5
        process.terminate()
    assert seconds < 5  # on a machine that is busy; alone 0.3 s


def test_a_current_folder_that_was_deleted_is_told(tmp_path):
    words = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m dayfold predict a.png"
    done = subprocess.run(["sh", "-c", words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the folder that this runs in was deleted" in done.stderr
    assert "Traceback" not in done.stderr


OFFLINE = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
NO_REMOTE = "DVC cannot use {} as a remote."
FTP, GS = "ftp://host/path", "gs://bucket/path"


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ((*RANDOM, "--remote", FTP), {}, (NO_REMOTE.format(FTP), "ftp")),
        ((*RANDOM, "--remote", GS), {}, (NO_REMOTE.format(GS), "dvc-gs")),
        # ImageNet's weights without a network.
        ((), OFFLINE, ("cannot be downloaded", "--weights FILE", "--weights random")),
    ],
)
def test_where_a_project_cannot_be_it_is_said_and_nothing_is_left(
    tmp_path, shell, words, environment, said
):
    rest = shell(tmp_path, "dayfold", "init", "scans", *words, code=1, **environment)
    for part in said:
        assert part in rest
        rest = rest.partition(part)[2]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def outer(tmp_path, shell):
    """A git repository of something else, in a folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    shell(folder, "git", "init", "--quiet")
    (folder / ".gitignore").write_text("/scratch/\n")
    return folder


def test_in_another_repository_nothing_is_made_without_consent_nor_by_no_expression(outer, shell):
    said = shell(outer, "dayfold", "init", "deep/scans", *RANDOM, code=1)
    assert f"is inside the git repository {outer}" in said
    assert f"add /deep/scans/ to {outer}/.gitignore" in said
    assert "dayfold init … --yes" in said
    assert sorted(path.name for path in outer.iterdir()) == [".git", ".gitignore"]
    said = shell(outer.parent, "dayfold", "init", "work", *RANDOM, code=1)
    assert "is a git repository already" in said
    with pytest.raises(ParamsError, match=r"data\.group is 'P': needs exactly one"):
        create.init(outer.parent / "scans", create.Options("random", group="P"))
    assert not (outer.parent / "scans").exists()


@pytest.mark.slow
def test_with_consent_or_where_it_is_ignored_it_has_a_repository_of_its_own(
    outer, shell, monkeypatch, capsys
):
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    for place, state, yes in (("scratch/scans", "ignored by", False), ("scans", "inside", True)):
        options = create.Options("random", image_size_px=16, yes=yes, group=r"/(P\d+)_")
        create.init(outer / place, options)
        said = capsys.readouterr().out.partition("\n")[0]
        assert f"is {state} the git repository {outer}" in said
        top = shell(outer / place, "git", "rev-parse", "--show-toplevel")
        assert top == f"{outer / place}\n"
        assert params_file.read(outer / place / "params.yaml").data.group == r"/(P\d+)_"
    # A repository within, as git calls it: none of its files is the outer one's.
    assert shell(outer, "git", "status", "--porcelain") == "?? .gitignore\n?? scans/\n"


def test_this_repository_is_a_project_with_the_same_files_for_git(repository):
    assert template.lacking(repository) == {}


def test_what_git_files_lack_is_named_and_comes_after_what_a_person_wrote(
    tmp_path, monkeypatch, hostile
):
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    vcs.git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitattributes").write_text("*.txt text")
    sign = check._git_files(tmp_path)
    assert sign.found.startswith(".gitattributes and .gitignore may let git change")
    sign.fix()
    assert (tmp_path / ".gitattributes").read_text() == f"*.txt text\n\n{template.ATTRIBUTES}"
    assert (tmp_path / ".gitignore").read_text() == template.IGNORE
    assert check._git_files(tmp_path).hint == ""
    table = tmp_path / "data" / "manifests" / "origin.csv"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"action,image\n")
    vcs.git(tmp_path, "add", ".")
    table.unlink()
    vcs.git(tmp_path, "checkout", "--quiet", "--", "data")
    assert table.read_bytes() == b"action,image\n"
