"""Images in the folder of a day that nobody has are named, and taken in by what is advised."""

import shlex
import shutil

import pytest

from dayfold.demo import DAYS

pytestmark = pytest.mark.slow
TWO, THREE, FOUR = DAYS[1], DAYS[2], DAYS[3]


def reset(project, shell):
    """As "Reset workspace" of an editor does."""
    shell(project.root, "git", "reset", "--quiet", "--hard")
    shell(project.root, "git", "clean", "--quiet", "-f", "-d")
    shell(project.root, "dvc", "checkout", "--quiet")


def test_after_a_reset_the_day_is_opened_again_by_the_same_folder(copy, shell, digits):
    source = str(digits / FOUR)
    shell(copy.root, "dayfold", "add", source, "--day", FOUR)
    reset(copy, shell)
    count = sum(path.is_file() for path in copy.images(FOUR).rglob("*"))
    stray = f"data/images/{FOUR} holds {count} images that belong to no day"
    command = f"dayfold add data/images/{FOUR} --day {FOUR}"
    said = shell(copy.root, "dayfold", "status")
    assert f"stray   {stray}: {command}\n" in said
    assert said.endswith(f"next    {command}\n")
    said = shell(copy.root, "dayfold", "check", code=1)
    assert f"{stray}\n" in said
    assert f"→ {command}\n" in said
    said = shell(copy.root, "dayfold", "add", source, "--day", FOUR)
    assert said.startswith(f"opened {FOUR} (parent {THREE})\n")
    assert f"{count} images lay in data/images/{FOUR} already: part of {FOUR} now" in said
    assert said.endswith("next: dvc repro\n")
    assert f"day     {FOUR}, open" in shell(copy.root, "dayfold", "status")


def test_what_is_advised_takes_them_in_whatever_day_they_are_of(copy, shell, digits):
    early = copy.images("2025-06-01")
    shutil.copytree(digits / DAYS[4], early)
    count = sum(path.is_file() for path in early.rglob("*"))
    advised = shell(copy.root, "dayfold", "status").splitlines()[-1].removeprefix("next    ")
    assert advised == "dayfold add data/images/2025-06-01 --move"
    shell(copy.root, "dayfold", "add", "--day", FOUR)
    said = shell(copy.root, "dayfold", "status")
    assert f"data/images/2025-06-01 --move --day {FOUR}\n" in said
    shell(copy.root, *shlex.split(said.partition("no day: ")[2].partition("\n")[0]))
    said = shell(copy.root, "dayfold", "status")
    assert f"images  {count} in " in said
    assert "stray" not in said


def test_what_is_of_a_day_is_no_stray(copy, shell):
    # Of the checkout of an earlier day the later ones are not: they are sealed.
    shell(copy.root, "git", "checkout", "--quiet", f"day/{TWO}")
    assert "stray" not in shell(copy.root, "dayfold", "status")
    (copy.images(FOUR) / "0").mkdir(parents=True)  # empty
    assert "stray" not in shell(copy.root, "dayfold", "status")


def test_copies_of_images_of_earlier_days_open_no_day(copy, shell, digits):
    shutil.copytree(digits / TWO, copy.images(FOUR))
    said = shell(copy.root, "dayfold", "add", str(digits / TWO), "--day", FOUR)
    assert f"lay in data/images/{FOUR}, but earlier days have them too" in said
    assert said.endswith("nothing new\n")
    said = shell(copy.root, "dayfold", "status")
    assert "that earlier days have too; it is not needed\n" in said
    assert said.endswith("next    dayfold add FOLDER\n")
