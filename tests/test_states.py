"""No dead ends: in every state that a project comes to, what `status` advises leads on."""

import re
import shlex
import shutil
import time

import pytest

from builders import NO_GATE, RealProject, place
from dayfold.demo import DAYS
from dayfold.project import journal, params
from dayfold.project.journal import Note

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR = DAYS[:4]
STEPS = 8  # commands that a way may take
SEALED = rf"^day +{THREE}, sealed(?s:.*)^next +dayfold add FOLDER$"


@pytest.fixture
def images(tmp_path):
    place(tmp_path / "in", "cyst", range(6000, 6008))
    place(tmp_path / "in", "0", range(6010, 6018))
    return tmp_path / "in"


def follow(project, images, until):
    """Do as `status` says until it says what is looked for."""
    done = []
    while not re.search(until, said := project.dayfold("status"), re.MULTILINE):
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
        project.sh("-c", command)


# How a project comes to a state, as a person types it.
FIRST = f"$(ls data/images/{ONE}/*/* | head -n 1)"
CORRECT = f"dayfold relabel {FIRST} --to 9 --day {FOUR}"
TYPED = {
    "open without images": f"dayfold add --day {FOUR}",
    "open with images": f"dayfold add $IMAGES --day {FOUR}",
    "with a correction alone": CORRECT,
    "with a correction taken back": f"{CORRECT} && dayfold relabel {FIRST} --undo",
    "made again": "sed -i 's/  size: 100 /  size: 5 /' params.yaml && dvc repro replay",
    "rebased": "git commit --quiet --amend -m 'better words'",
    "without its tag": f"git tag --delete day/{THREE}",
    "merged": f"""
        git checkout --quiet -b merged day/{TWO}
        echo theirs > README.md
        git commit --quiet -am theirs
        git checkout --quiet -
        git merge --quiet --no-edit merged
    """,
    "detached": f"git checkout --quiet day/{TWO} && dvc checkout",
    "on another branch": f"git checkout --quiet -b mine day/{TWO} && dvc checkout",
    # As "Reset workspace" of an editor does.
    "reset": f"""
        dayfold add $IMAGES --day {FOUR}
        git reset --quiet --hard
        git clean -fdq
        dvc checkout --quiet
    """,
    "without what it was opened with": f"""
        dayfold add $IMAGES --day {FOUR}
        dvc add data/images/{FOUR}  # as `dvc repro` does
        rm -r data/images/{FOUR} data/corrections/{FOUR}.csv data/groups/{FOUR}.csv data/parent
    """,
    "reverted": f"git revert --no-edit day/{THREE}",
    "with a moved tag": f"git tag --force day/{TWO} day/{THREE}~2",
    "edited": f"rm {FIRST}",
}


def bring(project, images, state):
    if state != "killed while opening":
        project.sh("-e", "-c", TYPED[state], IMAGES=str(images))
        return
    bring(project, images, "open without images")
    params.edit(project.params, {"day": THREE, "parent": TWO})
    facts = {"day": FOUR, "parent": THREE}
    journal.write(project, Note("open", time.time(), "open", time.time(), facts))


@pytest.mark.parametrize(
    "states",
    [
        ("rebased", "without its tag", "made again"),  # which keeps its params
        ("merged", "detached", "edited", "with a moved tag", "reverted"),
    ],
    ids=", ".join,
)
def test_what_status_advises_leads_back_to_the_sealed_day(copy, images, states):
    for state in states:
        bring(copy, images, state)
        follow(copy, images, SEALED)
    assert "nothing damaged" in copy.dayfold("check")


def test_what_status_advises_leads_to_a_day_that_lacks_its_training_alone(copy, images):
    for state in (
        "open without images",
        "killed while opening",
        "open with images",
        "with a correction taken back",
        "without what it was opened with",
        "reset",
        "on another branch",
    ):
        bring(copy, images, state)
        follow(copy, images, r"^next +dvc repro$")
        last = state == "on another branch"
        copy.dvc("repro", "replay" if last else "snapshot")
        said = copy.dayfold("status")
        assert re.search(rf"^day +{FOUR}, open.*\nsealed.*\nimages +16 in 2 classes", said)
        assert said.endswith("next    dvc repro\n")
        copy.dayfold("undo", "--yes")


@pytest.mark.parametrize("state", ["new", "with a correction alone"])
def test_what_status_advises_leads_to_a_sealed_day(tmp_path, copy, shell, images, state):
    if state in TYPED:
        project = copy
        bring(copy, images, state)
    else:
        shell(tmp_path, "dayfold", "init", "new", "--weights", "random", "--image-size", "16")
        project = RealProject(tmp_path / "new")
        small = {"train.updates": 2, "train.batch_size": 8, "train.threads": 1}
        params.edit(project.params, {**small, **NO_GATE})
    follow(project, images, f"{FOUR}, sealed")
    assert "nothing damaged" in project.dayfold("check")


def test_images_that_no_day_has_are_named_and_taken_in_as_is_advised(copy, digits):
    early = copy.images("2025-06-01")
    shutil.copytree(digits / DAYS[4], early)
    count = sum(path.is_file() for path in early.rglob("*"))
    advised = copy.dayfold("status").splitlines()[-1].removeprefix("next    ")
    assert advised == "dayfold add data/images/2025-06-01 --move"
    said = copy.dayfold("check", code=1)
    assert f"data/images/2025-06-01 holds {count} images that belong to no day\n" in said
    assert f"→ {advised}\n" in said
    copy.dayfold("add", "--day", FOUR)
    said = copy.dayfold("status")
    assert f"data/images/2025-06-01 --move --day {FOUR}\n" in said
    copy.shell(*shlex.split(said.partition("no day: ")[2].partition("\n")[0]))
    said = copy.dayfold("status")
    assert f"images  {count} in " in said
    assert "unused" not in said


def test_what_earlier_or_later_days_have_is_no_stray_and_opens_no_day(copy, digits):
    shutil.copytree(digits / TWO, copy.images(FOUR))
    said = copy.dayfold("add", str(digits / TWO), "--day", FOUR)
    assert said.endswith("nothing new\n")
    said = copy.dayfold("status")
    assert "that earlier days have too; the folder is not needed\n" in said
    assert said.endswith("next    dayfold add FOLDER\n")
    # Of the checkout of an earlier day the later ones are not: they are sealed.
    for path in copy.images(FOUR).rglob("*.png"):
        path.unlink()  # its folders stay, empty
    copy.git("checkout", "--quiet", f"day/{TWO}")
    assert "unused" not in copy.dayfold("status")
