"""No dead ends: in every state that a project comes to, what `status` advises leads on."""

import re
import shutil
import subprocess
import time

import pytest

from builders import NO_GATE, place
from dayfold.demo import DAYS
from dayfold.project import journal, params, vcs
from dayfold.project.journal import Note
from dayfold.project.layout import Project

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]
STEPS = 8  # commands that a way to a sealed day may take


@pytest.fixture
def images(tmp_path):
    place(tmp_path / "in", "cyst", range(6000, 6008))
    place(tmp_path / "in", "0", range(6010, 6018))
    return tmp_path / "in"


def none(copy, shell, images):
    new = copy.root.parent / "new"
    shell(new.parent, "dayfold", "init", "new", "--weights", "random", "--image-size", "32")
    made = Project(new)
    small = {"train.updates": 2, "train.batch_size": 8}
    params.edit(made.params, {**small, "train.threads": 1})
    params.edit(made.params, NO_GATE)
    return made


def open_without_images(copy, shell, images):
    shell(copy.root, "dayfold", "add", "--day", FOUR)


def open_with_images(copy, shell, images):
    shell(copy.root, "dayfold", "add", str(images), "--day", FOUR)


def with_a_correction_alone(copy, shell, images):
    path = sorted(copy.images(ONE).glob("*/*"))[0]
    shell(copy.root, "dayfold", "relabel", str(path), "--to", "9", "--day", FOUR)


def with_a_correction_taken_back(copy, shell, images):
    with_a_correction_alone(copy, shell, images)
    path = sorted(copy.images(ONE).glob("*/*"))[0]
    shell(copy.root, "dayfold", "relabel", str(path), "--undo")


def sealed(copy, shell, images):
    pass


def made_again(copy, shell, images):
    params.edit(copy.params, {"replay.size": 5})
    shell(copy.root, "dvc", "repro", "replay")


def killed_while_opening(copy, shell, images):
    shell(copy.root, "dayfold", "add", "--day", FOUR)
    texts = {copy.name(copy.tracked(FOUR)): None, copy.name(copy.corrections(FOUR)): None}
    for path in (copy.parent.with_suffix(".dvc"), copy.tracked(THREE)):
        name = copy.name(path)
        texts[name] = vcs.blob(copy.root, f"HEAD:{name}").decode()
    params.edit(copy.params, {"day": THREE, "parent": TWO})
    facts = {"day": FOUR, "texts": texts}
    note = Note.of("open")._replace(step="open", step_began=time.time(), facts=facts)
    journal._write(copy, note)


def rebased(copy, shell, images):
    shell(copy.root, "git", "commit", "--quiet", "--amend", "-m", "better words")


def without_its_tag(copy, shell, images):
    shell(copy.root, "git", "tag", "--delete", f"day/{THREE}")


def merged(copy, shell, images):
    shell(copy.root, "git", "checkout", "--quiet", "-b", "theirs", f"day/{TWO}")
    (copy.root / "README.md").write_text("theirs")
    shell(copy.root, "git", "commit", "--quiet", "-am", "theirs")
    shell(copy.root, "git", "checkout", "--quiet", "-")
    shell(copy.root, "git", "merge", "--quiet", "--no-edit", "theirs")


def in_conflict(copy, shell, images):
    ours = vcs.branch(copy.root)
    shell(copy.root, "git", "branch", "theirs", f"day/{TWO}")
    for text, branch in (("theirs", "theirs"), ("ours", ours)):
        shell(copy.root, "git", "checkout", "--quiet", branch)
        copy.metrics.write_text(copy.metrics.read_text() + f"\n# {text}")
        shell(copy.root, "git", "commit", "--quiet", "-am", text)
    assert subprocess.run(["git", "merge", "theirs"], cwd=copy.root, capture_output=True).returncode


def cloned_without_data(copy, shell, images):
    top = copy.root.parent
    shell(copy.root, "dvc", "remote", "add", "--local", "-d", "store", str(top / "store"))
    shell(copy.root, "dvc", "push", "--all-tags")
    shell(top, "git", "clone", "--quiet", str(copy.root), "clone")
    made = Project(top / "clone")
    shell(made.root, "dvc", "remote", "add", "--local", "-d", "store", str(top / "store"))
    return made


def detached(copy, shell, images):
    shell(copy.root, "git", "checkout", "--quiet", f"day/{TWO}")
    shell(copy.root, "dvc", "checkout")


def on_another_branch(copy, shell, images):
    shell(copy.root, "git", "checkout", "--quiet", "-b", "mine", f"day/{TWO}")
    shell(copy.root, "dvc", "checkout")


def reset(copy, shell, images):
    shell(copy.root, "dayfold", "add", str(images), "--day", FOUR)
    shell(copy.root, "git", "reset", "--quiet", "--hard")
    shell(copy.root, "git", "clean", "-fdq")
    shell(copy.root, "dvc", "checkout", "--quiet")


def edited(copy, shell, images):
    path = sorted(copy.images(ONE).glob("*/*"))[0]
    path.unlink()


@pytest.mark.parametrize(
    "state",
    [
        none,
        open_without_images,
        open_with_images,
        with_a_correction_alone,
        with_a_correction_taken_back,
        sealed,
        made_again,
        killed_while_opening,
        rebased,
        without_its_tag,
        merged,
        cloned_without_data,
        detached,
        on_another_branch,
        reset,
        edited,
    ],
)
def test_what_status_advises_leads_to_a_sealed_day(copy, shell, images, state):
    project = state(copy, shell, images) or copy
    done = []
    while f"{FOUR}, sealed" not in (said := shell(project.root, "dayfold", "status")):
        [command] = re.findall(r"^next +(.*)", said, re.MULTILINE)
        # The first of what may be done, without what is said of it.
        command = re.split(r"; |, or |, to | \(", command)[0].replace(", then ", " && ")
        command = command.replace("FOLDER", str(images))
        command = command.replace("dayfold undo", "dayfold undo --yes")  # nobody is asked here
        if "dayfold add" in command and "--day" not in command:
            command += f" --day {FOUR}"
        done.append(command)
        assert len(done) <= STEPS, done
        shell(project.root, "sh", "-c", command)
    assert "nothing damaged" in shell(project.root, "dayfold", "check")


def test_a_conflict_is_for_a_person_and_the_way_back_is_a_command(copy, shell, images):
    in_conflict(copy, shell, images)
    said = shell(copy.root, "dayfold", "status")
    assert "A merge is under way in this project, and 1 of its files are in conflict:" in said
    back = re.search(r"to take it back: ([^;]*);", said)[1]
    shell(copy.root, "sh", "-c", back)
    assert f"{THREE}, sealed" in shell(copy.root, "dayfold", "status")
    shutil.rmtree(images)
