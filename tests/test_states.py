"""No dead ends: in every state that a project comes to, what `status` advises leads on."""

import re
import shlex
import shutil
import time

import pytest

from builders import NO_GATE, place
from dayfold.demo import DAYS
from dayfold.project import journal, params
from dayfold.project.journal import Note
from dayfold.project.layout import Project

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]
STEPS = 8  # commands that a way may take
SEALED = rf"^day +{THREE}, sealed(?s:.*)^next +dayfold add FOLDER$"


@pytest.fixture
def images(tmp_path):
    place(tmp_path / "in", "cyst", range(6000, 6008))
    place(tmp_path / "in", "0", range(6010, 6018))
    return tmp_path / "in"


def follow(project, shell, images, until):
    """Do as `status` says until it says what is looked for."""
    done = []
    while not re.search(until, said := shell(project.root, "dayfold", "status"), re.MULTILINE):
        [command] = re.findall(r"^next +(.*)", said, re.MULTILINE)
        # The first of what may be done, without what is said of it.
        command = re.sub("^to (take|have) it back: ", "", command)
        command = re.split(r"; |, or |, to | \(", command)[0].replace(", then ", " && ")
        command = command.replace("FOLDER", str(images))
        command = command.replace("dayfold undo", "dayfold undo --yes")  # nobody is asked here
        if "dayfold add" in command and "--day" not in command:
            command += f" --day {FOUR}"
        done.append(command)
        assert len(done) <= STEPS, done
        shell(project.root, "sh", "-c", command)


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


def made_again(copy, shell, images):
    params.edit(copy.params, {"replay.size": 5})
    shell(copy.root, "dvc", "repro", "replay")


def killed_while_opening(copy, shell, images):
    shell(copy.root, "dayfold", "add", "--day", FOUR)
    params.edit(copy.params, {"day": THREE, "parent": TWO})
    facts = {"day": FOUR, "parent": THREE}
    journal.write(copy, Note("open", time.time(), "open", time.time(), facts))


def rebased(copy, shell, images):
    shell(copy.root, "git", "commit", "--quiet", "--amend", "-m", "better words")


def without_its_tag(copy, shell, images):
    shell(copy.root, "git", "tag", "--delete", f"day/{THREE}")


def merged(copy, shell, images):
    shell(copy.root, "git", "checkout", "--quiet", "-b", "merged", f"day/{TWO}")
    (copy.root / "README.md").write_text("theirs")
    shell(copy.root, "git", "commit", "--quiet", "-am", "theirs")
    shell(copy.root, "git", "checkout", "--quiet", "-")
    shell(copy.root, "git", "merge", "--quiet", "--no-edit", "merged")


def detached(copy, shell, images):
    shell(copy.root, "git", "checkout", "--quiet", f"day/{TWO}")
    shell(copy.root, "dvc", "checkout")


def on_another_branch(copy, shell, images):
    shell(copy.root, "git", "checkout", "--quiet", "-b", "mine", f"day/{TWO}")
    shell(copy.root, "dvc", "checkout")


def reset(copy, shell, images):
    """As "Reset workspace" of an editor does."""
    shell(copy.root, "dayfold", "add", str(images), "--day", FOUR)
    shell(copy.root, "git", "reset", "--quiet", "--hard")
    shell(copy.root, "git", "clean", "-fdq")
    shell(copy.root, "dvc", "checkout", "--quiet")


def without_what_it_was_opened_with(copy, shell, images):
    open_with_images(copy, shell, images)
    shell(copy.root, "dvc", "add", f"data/images/{FOUR}")  # as `dvc repro` does
    shutil.rmtree(copy.images(FOUR))
    copy.corrections(FOUR).unlink()
    copy.groups(FOUR).unlink()
    shutil.rmtree(copy.parent)


def reverted(copy, shell, images):
    shell(copy.root, "git", "revert", "--no-edit", f"day/{THREE}")


def with_a_moved_tag(copy, shell, images):
    shell(copy.root, "git", "tag", "--force", f"day/{TWO}", f"day/{THREE}~2")


def edited(copy, shell, images):
    path = sorted(copy.images(ONE).glob("*/*"))[0]
    path.unlink()


@pytest.mark.parametrize(
    "states",
    [
        (rebased, without_its_tag, made_again),  # which keeps its params
        (merged, detached, edited, with_a_moved_tag, reverted),
    ],
    ids=lambda states: " ".join(state.__name__ for state in states),
)
def test_what_status_advises_leads_back_to_the_sealed_day(copy, shell, images, states):
    for state in states:
        state(copy, shell, images)
        follow(copy, shell, images, SEALED)
    assert "nothing damaged" in shell(copy.root, "dayfold", "check")


def test_what_status_advises_leads_to_a_day_that_lacks_its_training_alone(copy, shell, images):
    for state in (
        open_without_images,
        killed_while_opening,
        open_with_images,
        with_a_correction_taken_back,
        without_what_it_was_opened_with,
        reset,
        on_another_branch,
    ):
        state(copy, shell, images)
        follow(copy, shell, images, r"^next +dvc repro$")
        last = state is on_another_branch
        shell(copy.root, "dvc", "repro", "replay" if last else "snapshot")
        said = shell(copy.root, "dayfold", "status")
        assert re.search(rf"^day +{FOUR}, open.*\nsealed.*\nimages +16 in 2 classes", said)
        assert said.endswith("next    dvc repro\n")
        shell(copy.root, "dayfold", "undo", "--yes")


@pytest.mark.parametrize("state", [None, with_a_correction_alone])
def test_what_status_advises_leads_to_a_sealed_day(tmp_path, copy, shell, images, state):
    if state:
        project = copy
        state(copy, shell, images)
    else:
        shell(tmp_path, "dayfold", "init", "new", "--weights", "random", "--image-size", "16")
        project = Project(tmp_path / "new")
        small = {"train.updates": 2, "train.batch_size": 8, "train.threads": 1}
        params.edit(project.params, {**small, **NO_GATE})
    follow(project, shell, images, f"{FOUR}, sealed")
    assert "nothing damaged" in shell(project.root, "dayfold", "check")


# Images in the folder of a day that nobody has are named, and taken in by what is advised.


def test_what_is_advised_takes_them_in_whatever_day_they_are_of(copy, shell, digits):
    early = copy.images("2025-06-01")
    shutil.copytree(digits / DAYS[4], early)
    count = sum(path.is_file() for path in early.rglob("*"))
    advised = shell(copy.root, "dayfold", "status").splitlines()[-1].removeprefix("next    ")
    assert advised == "dayfold add data/images/2025-06-01 --move"
    said = shell(copy.root, "dayfold", "check", code=1)
    assert f"data/images/2025-06-01 holds {count} images that belong to no day\n" in said
    assert f"→ {advised}\n" in said
    shell(copy.root, "dayfold", "add", "--day", FOUR)
    said = shell(copy.root, "dayfold", "status")
    assert f"data/images/2025-06-01 --move --day {FOUR}\n" in said
    shell(copy.root, *shlex.split(said.partition("no day: ")[2].partition("\n")[0]))
    said = shell(copy.root, "dayfold", "status")
    assert f"images  {count} in " in said
    assert "stray" not in said


def test_what_earlier_or_later_days_have_is_no_stray_and_opens_no_day(copy, shell, digits):
    shutil.copytree(digits / TWO, copy.images(FOUR))
    said = shell(copy.root, "dayfold", "add", str(digits / TWO), "--day", FOUR)
    assert said.endswith("nothing new\n")
    said = shell(copy.root, "dayfold", "status")
    assert "that earlier days have too; it is not needed\n" in said
    assert said.endswith("next    dayfold add FOLDER\n")
    # Of the checkout of an earlier day the later ones are not: they are sealed.
    for path in copy.images(FOUR).rglob("*.png"):
        path.unlink()  # its folders stay, empty
    shell(copy.root, "git", "checkout", "--quiet", f"day/{TWO}")
    assert "stray" not in shell(copy.root, "dayfold", "status")
