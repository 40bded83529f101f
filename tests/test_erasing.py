"""Erased images: their bytes are nowhere, their event stays, and all that comes after goes on."""

import io
import os
import pty
import shutil
import signal
import subprocess
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from select import select

import pytest

from builders import DAYS as SMALL_DAYS
from builders import ROOT, RealProject, make_project, open_day, place, png, table, take_in
from dayfold.cycle import erasing
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.decode import placeholder
from dayfold.project import storage, vcs
from dayfold.project.files import PART, sha256, sha256_file
from dayfold.proof.verify import verify

pytestmark = pytest.mark.slow
ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]


def holders(folder: Path, images: set[str], *, but: str = ".git") -> list[str]:
    """Every file below a folder that has the bytes of one of these images."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and but not in path.parts and sha256_file(path) in images
    ]


# A small project, of git and DVC without a model: one sealed day, and an open one.


@pytest.fixture(scope="module")
def made(tmp_path_factory, shell) -> Path:
    """Ten images of a sealed day, pushed to the folder beside, and a day that is open."""
    project = make_project(tmp_path_factory.mktemp("small") / "project")
    root = project.root
    shell(root, "git", "init", "--quiet")
    shell(root, "dvc", "init", "--quiet")
    take_in(project, SMALL_DAYS[0], {"cat": range(10)})
    for words in (
        ("dvc", "config", "cache.type", "hardlink,copy"),
        ("dvc", "remote", "add", "--default", "store", "../store"),
        ("dvc", "add", "--quiet", f"data/images/{SMALL_DAYS[0]}"),
        ("git", "add", "."),
        ("git", "commit", "--quiet", "--message", "one"),
        ("git", "tag", "--annotate", "--message", "one", f"day/{SMALL_DAYS[0]}"),
        ("dvc", "push", "--quiet"),
    ):
        shell(root, *words)
    open_day(project, SMALL_DAYS[1])
    shutil.copy(ROOT / "dvc.yaml", project.dvc_yaml)
    return root.parent


@pytest.fixture
def small(made, tmp_path) -> RealProject:
    """A copy of it, to be changed at will."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return RealProject(tmp_path / "project")


def erasure(project: RealProject, *paths: str | Path, reason: str = "consent") -> erasing.Erasure:
    return erasing.Erasure(project, paths, reason=reason, day=SMALL_DAYS[1])


def erase(project: RealProject, *paths: str | Path, reason: str = "consent") -> list[str]:
    with redirect_stdout(io.StringIO()) as said:
        erasure(project, *paths, reason=reason).carry_out()
    return said.getvalue().splitlines()


def test_every_copy_goes_and_hard_links_too(small, tmp_path):
    path = small.images(SMALL_DAYS[0]) / "cat" / "3.png"
    image = sha256(png(3))
    (cached,) = [one for one in holders(small.root, {image}) if "cache" in one]
    path.unlink()
    for link in (path, small.root / "a link.png"):
        os.link(small.root / cached, link)
    os.link(small.root / cached, tmp_path / "outside.png")
    shutil.copy(path, small.root / ".dvc" / "tmp" / "copy")
    page = small.report(SMALL_DAYS[0])
    page.parent.mkdir()
    page.write_text(f"<img alt='{small.name(path)}'>")
    # What a frozen network made of it.
    kept = [small.activations / "key" / sha256(png(number)) for number in (3, 4)]
    for made in kept:
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(b"activations")
    assert len(holders(small.root, {image})) == 4
    found = erasure(small, path)
    text = "\n".join(found.described())
    assert "and copies: a link.png, .dvc/tmp/copy" in text
    assert "1 more hard links of the same file are outside the project: find" in text
    assert holders(small.root, {image}) != []  # nothing is done before it is confirmed
    found.carry_out()
    assert holders(small.root, {image}) == []
    assert holders(tmp_path / "store", {image}) == []
    assert path.read_bytes() == placeholder(image)
    assert (small.root / cached).read_bytes() == placeholder(image)
    assert (small.root / cached).stat().st_mode & 0o777 == 0o444
    assert not page.exists()
    assert [made.exists() for made in kept] == [False, True]
    # All others are whole, and DVC finds nothing changed.
    assert len(holders(small.root, {sha256(png(number)) for number in range(10)})) == 18
    assert vcs.stale(small.root, f"data/images/{SMALL_DAYS[0]}.dvc") == []
    assert vcs.dvc(small.root, "push").strip() == "Everything is up to date."


def test_an_erase_that_is_killed_anywhere_is_finished_by_the_same_command(
    small, tmp_path, monkeypatch
):
    # One image is killed at each write and removal, the next one a step further.
    step, stop = 0, -1

    def counted(function):
        def run(*words, **options):
            nonlocal step
            # The part of a file that is being written belongs to its write.
            step += not str(words[0]).endswith(PART)
            if step == stop:
                raise KeyboardInterrupt
            return function(*words, **options)

        return run

    for module in (erasing, storage, corrections.tables):
        name = "write_csv" if module is corrections.tables else "write_bytes"
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(vcs, "dvc", counted(vcs.dvc))
    folder, killed = small.images(SMALL_DAYS[0]) / "cat", 0
    for number in range(10):
        (small.root / f"copy{number}.png").write_bytes(png(number))
        step, stop = 0, number + 1
        try:
            erase(small, folder / f"{number}.png")
        except KeyboardInterrupt:
            killed += 1
        stop = -1
    assert 6 <= killed < 10  # event, remote, copy, cache, its text, file, checkout; then it ends
    everything = {sha256(png(number)) for number in range(10)}
    assert holders(tmp_path, everything) != []
    said = erase(small, folder)
    assert holders(tmp_path, everything) == []
    assert vcs.stale(small.root, f"data/images/{SMALL_DAYS[0]}.dvc") == []
    lines = corrections.of_day(small, SMALL_DAYS[1]).values()
    assert {line.image for line in lines if line.action == "erase"} == everything
    # And once more there is nothing left to do.
    assert [line for line in erase(small) if "erased" in line] == [
        "remote store: 0 erased",
        "here: 0 files and objects erased, 0 copies removed",
    ]
    assert said


def test_a_clone_without_images_erases_in_the_remote(small, tmp_path, shell):
    shell(tmp_path, "git", "clone", "--quiet", "project", "clone")
    clone = RealProject(tmp_path / "clone")
    open_day(clone, SMALL_DAYS[1])
    image = sha256(png(3))
    assert "remote store: 1 erased" in erase(clone, image)
    assert holders(tmp_path / "store", {image}) == []
    # The first clone still has the bytes, and is told how to erase them when it knows the event.
    assert len(holders(small.root, {image})) == 2
    shutil.copy(clone.corrections(SMALL_DAYS[1]), small.corrections(SMALL_DAYS[1]))
    # The copy is what its snapshot kept of the image for training.
    assert "here: 2 files and objects erased, 1 copy removed" in erase(small)
    assert holders(small.root, {image}) == []


def test_a_remote_that_cannot_be_reached_or_is_not_mounted_is_told_and_the_rest_is_done(
    small, tmp_path
):
    path = small.images(SMALL_DAYS[0]) / "cat" / "3.png"
    everywhere = "Recorded, and erased here, but not everywhere"
    # It is not taken for an empty one.
    (tmp_path / "store").rename(tmp_path / "unmounted")
    with pytest.raises(CycleError, match=everywhere) as caught:
        erase(small, path)
    assert "the folder is not there (is its disk mounted?)" in caught.value.problems[0]
    (tmp_path / "unmounted").rename(tmp_path / "store")
    small.dvc("remote", "add", "--local", "away", "http://127.0.0.1:9/store")
    with pytest.raises(CycleError, match=everywhere) as caught:
        erase(small)
    assert caught.value.problems[0].startswith("remote away (http://127.0.0.1:9/store): ")
    assert caught.value.hint.endswith("dayfold withdraw --erase")
    assert holders(tmp_path, {sha256(png(3))}) == []
    small.dvc("remote", "remove", "--local", "away")
    erase(small)


def test_what_cannot_be_erased_is_listed_and_nothing_is_done(small):
    (new,) = place(small.images(SMALL_DAYS[1]), "cat", [11])
    path = small.images(SMALL_DAYS[0]) / "cat" / "3.png"
    with pytest.raises(CycleError) as caught:
        erase(small, new, path, "nowhere", reason="")
    assert [problem.split()[0] for problem in caught.value.problems] == ["nowhere", "a"]
    assert new.exists()
    with pytest.raises(CycleError, match="No image is recorded as erased"):
        erase(small)
    said = small.dayfold("withdraw", str(path), "--erase", "--reason", "x", code=1)
    assert "There is no terminal to ask on, so nothing was done" in said
    assert sha256_file(path) == sha256(png(3))
    assert corrections.of_day(small, SMALL_DAYS[1]) == {}


def test_an_image_of_the_open_day_goes_from_the_cache_and_the_remote_too(small, tmp_path):
    day = SMALL_DAYS[1]
    new, other = place(small.images(day), "cat", [11, 12])
    small.dvc("add", "--quiet", small.name(small.images(day)))
    small.dvc("push", "--quiet")
    shutil.copy(new, small.root / "copy.png")
    image = {sha256(png(11))}
    assert len(holders(small.root, image)) == 3
    found = erasure(small, new, reason="")
    text = "\n".join(found.described())
    assert "to be erased: 1 image\n" in text
    assert f"  {small.name(new)}\n    of the open day only" in text
    found.carry_out()
    assert holders(small.root, image) == []
    assert holders(tmp_path / "store", image) == []
    assert other.exists()
    assert corrections.of_day(small, day) == {}  # no sealed day has it, so no event tells of it
    small.dvc("checkout", "--quiet", "--force", small.name(small.images(day)))
    assert other.exists()
    assert holders(small.root, image) == []


def test_what_was_erased_is_not_taken_back_relabelled_or_taken_in_again(small):
    day, path = SMALL_DAYS[1], small.images(SMALL_DAYS[0]) / "cat" / "3.png"
    small.dayfold("withdraw", str(path), "--reason", "blurred")
    # The reason of today's withdrawal stands.
    erase(small, path, reason="")
    (line,) = corrections.of_day(small, day).values()
    assert (line.action, line.reason) == ("erase", "blurred")
    for words, told in (
        (("withdraw", str(path), "--undo"), "was erased: that cannot be undone"),
        (("relabel", str(path), "--to", "x"), "was erased"),
        (("withdraw", "--erase", "--undo"), "What was erased cannot be brought back"),
        (("undo", "--yes"), "erased 1 image of earlier days, so it cannot be undone"),
    ):
        assert told in small.dayfold(*words, code=1)
    # The text without its event, as after a git checkout, stops nothing.
    small.corrections(day).write_text("action,image,label,reason\n")
    assert "edited" not in small.dayfold("status")
    erase(small, path)
    assert corrections.of_day(small, day)[sha256(png(3))].action == corrections.ERASE
    (again,) = place(small.images(day), "dog", [3])
    text = again.with_name("text.png")
    shutil.copy(path, text)
    said = small.dayfold("snapshot", code=1)
    assert f"{small.name(text)} was erased: a line of text is in its place" in said


@pytest.mark.cold  # Ctrl-C is for the process that asks
@pytest.mark.parametrize(("answer", "said"), [(b"n\n", "Nothing was done"), (b"", "Aborted")])
def test_on_a_terminal_it_asks_and_no_or_ctrl_c_leaves_all_as_it_is(small, answer, said):
    path = small.images(SMALL_DAYS[0]) / "cat" / "3.png"
    terminal, its = pty.openpty()
    process = subprocess.Popen(
        ["dayfold", "withdraw", str(path), "--erase", "--reason", "x"],
        cwd=small.root,
        env=vcs.environment(),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown, asked = b"", False
    with suppress(OSError):  # it has ended
        while select([terminal], [], [], 120)[0]:
            shown += os.read(terminal, 4096)
            if b"[y/N]" in shown and not asked:
                asked = True
                time.sleep(0.5)  # until it reads
                os.write(terminal, answer) if answer else process.send_signal(signal.SIGINT)
    os.close(terminal)
    assert process.wait(60) == 1, shown
    assert said in shown.decode()
    assert sha256_file(path) == sha256(png(3))
    assert corrections.of_day(small, SMALL_DAYS[1]) == {}


# The three real days, shared by a folder; then a fourth that erases, and a clone's fifth.


@pytest.fixture(scope="module")
def shared(three_days, tmp_path_factory, share) -> RealProject:
    """Three sealed days, pushed to a folder; nothing of them is open."""
    folder = tmp_path_factory.mktemp("erased")
    return share(three_days, folder, str(folder / "store"))


def some(project: RealProject, day: str, split: str) -> dict[str, str]:
    rows = manifest.history(project, THREE).images.filter(day=day, split=split)
    return rows.row(0, named=True)


@pytest.fixture(scope="module")
def erased(shared) -> tuple[RealProject, list[dict[str, str]], str]:
    """A training and a test image of the second day, erased on the fourth, which is open."""
    images = [some(shared, TWO, split) for split in ("train", "test")]
    paths = [row["path"] for row in images]
    words = ("--erase", "--reason", "consent", "--yes", "--day", FOUR)
    return shared, images, shared.dayfold("withdraw", *paths, *words)


def test_the_days_that_saw_an_image_are_told(erased):
    project, (trained, tested), said = erased
    assert (
        f"  {tested['path']}\n    the models of {TWO} to {THREE} were calibrated or tested" in said
    )
    assert f"  {trained['path']}\n    the models of {TWO}" in said
    assert f"{TWO} to {THREE} cannot be made again as recorded" in said
    assert "here: 4 files and objects erased" in said
    ids = {row["image"] for row in (trained, tested)}
    assert holders(project.root.parent, ids) == []


def test_verify_takes_the_text_by_its_event_and_finds_other_damage(erased, digits):
    project, (trained, tested), _ = erased
    found = verify(project, read_data=True)
    assert (found.damage, found.erased) == ([], 4)
    # The text of another image in an image's place, and any other text, are damage.
    file, object_ = project.root / tested["path"], project.root / trained["path"]
    kept = file.read_bytes()
    file.unlink()
    file.write_bytes(placeholder(trained["image"]))
    [(day, what, _)] = verify(project, read_data=True).damage
    assert (day, what) == (TWO, f"{tested['path']} is damaged")
    file.write_bytes(kept)
    other = next(path for path in object_.parent.iterdir() if path.name != object_.name)
    whole = other.read_bytes()
    other.unlink()
    other.write_bytes(whole[:-1])
    [(_, what, hint)] = verify(project, read_data=True).damage
    assert what == f"{project.name(other)} is damaged"
    project.sh("-c", hint)
    # Without the event it is damage.
    lines = project.corrections(FOUR).read_text()
    project.corrections(FOUR).write_text("".join(lines.splitlines(keepends=True)[:2]))
    damage = verify(project, read_data=True).damage
    assert {(day, what.partition(":")[0]) for day, what, _ in damage} == {
        (TWO, row["path"])
        for row in (trained, tested)
        if row["image"] not in project.corrections(FOUR).read_text()
    }
    assert len(damage) == 2  # the file and the object
    project.corrections(FOUR).write_text(lines)
    # And with it, bytes that came back, as in a clone that has not erased them.
    assert verify(project, read_data=True).damage == []
    file.unlink()
    shutil.copy(digits / TWO / Path(tested["path"]).relative_to(f"data/images/{TWO}"), file)
    for read_data in (False, True):
        [(day, what, hint)] = verify(project, read_data=read_data).damage
        assert day == TWO
        assert what.startswith(f"{tested['path']} was erased on {FOUR}, and its bytes are here")
        assert hint == "dayfold withdraw --erase"
    file.unlink()
    file.write_bytes(kept)


def test_a_day_that_needs_an_erased_image_is_not_made_and_its_papers_promise_none(erased, tmp_path):
    project, images, _ = erased
    trained, _ = images
    said = project.dayfold("reproduce", ONE, TWO, code=1)
    assert f"{ONE}  identical\n" in said
    (line,) = [line for line in said.splitlines() if line.startswith(f"{TWO}  ")]
    assert line.startswith(f"{TWO}  not made: it needs images that were erased: ")
    assert any(row["path"] in line for row in images)
    assert line.endswith(" and 1 more")
    card = tmp_path / "MODEL_CARD.md"
    project.dayfold("export", str(card), "--day", TWO)
    text = card.read_text(encoding="utf-8")
    assert "It cannot be made again, as 2 images that it was made with were erased since" in text
    assert f"dayfold reproduce {TWO}" not in text
    project.dayfold("export", str(card), "--day", ONE)
    text = card.read_text(encoding="utf-8")
    assert "on such a machine to the bit" in text
    project.dayfold("report", "--day", TWO)
    page = project.report(TWO).read_text(encoding="utf-8")
    assert Path(trained["path"]).name not in page


def test_a_backtest_goes_without_it_and_says_so_and_changes_nothing_of_the_days(erased):
    project, _, _ = erased
    status = vcs.git(project.root, "status", "--porcelain")
    said = project.dayfold("backtest", "--policy", "project", "--days", f"{TWO}..")
    assert "left out of every day: 2 images withdrawn by now" in said
    assert "figures of the last day: on 166 test images; few: too few to judge" in said
    [scratch] = [RealProject(path.parent) for path in project.scratch.glob("backtest/*/data")]
    assert scratch.evaluation(ONE).read_bytes() == project.evaluation(ONE).read_bytes()
    before, now = (tables.evaluations(one, [TWO]).filter(model=TWO) for one in (project, scratch))
    assert now["images"].sum() == before["images"].sum() - 1
    assert vcs.git(project.root, "status", "--porcelain") == status
    assert project.backtest_curves.stat().st_size > 1000


def test_the_next_day_is_made_and_a_fresh_clone_goes_on(erased, shell, digits, tmp_path):
    project, images, _ = erased
    ids = {row["image"] for row in images}
    gone = some(project, ONE, "train")
    project.dayfold("withdraw", gone["path"], "--reason", "x", "--day", FOUR)
    project.dayfold("run", str(digits / FOUR), "--day", FOUR)
    assert ids <= manifest.history(project, FOUR).withdrawn
    for path in (project.replay, project.predictions):
        assert not {row["image"] for row in table(path)} & ids
    project.dvc("push", "--quiet")
    project.git("push", "--quiet", "--follow-tags")
    url = f"file://{project.root.parent / 'shared.git'}"
    shell(tmp_path, "git", "clone", "--quiet", url, "fresh")
    fresh = RealProject(tmp_path / "fresh")
    fresh.dvc("pull", "--quiet")
    assert vcs.stale(fresh.root) == []
    found = verify(fresh, read_data=True)
    assert (found.damage, found.erased) == ([], 4)
    # An image that an earlier day withdrew, and a day of that alone.
    words = ("--erase", "--yes", "--reason", "consent", "--day", FIVE)
    said = fresh.dayfold("withdraw", gone["image"], *words)
    assert f"the models of {ONE}" in said
    assert f"{FOUR} were trained" not in said
    fresh.dvc("repro", "snapshot")
    assert fresh.manifest(FIVE).read_text().splitlines()[1:] == [
        f"parent,{sha256_file(fresh.manifest(FOUR))},{FOUR},,,"
    ]
    assert holders(fresh.root, {gone["image"]}) == []
    found = verify(fresh, read_data=True)
    assert (found.damage, found.erased) == ([], 6)
