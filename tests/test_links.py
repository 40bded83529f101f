"""Images that DVC keeps as links into its cache are the files they lead to; no other link is."""

import pytest

from builders import DAYS, add, place, png, run_stages, taken
from dayfold.errors import IntakeError
from dayfold.history.state import ProjectState, unused_folders
from dayfold.ledger import manifest
from dayfold.ledger.intake import finding
from dayfold.project import vcs
from dayfold.project.files import sha256
from dayfold.stages import snapshot

DAY = DAYS[0]


@pytest.fixture
def linked(receiving, source, tmp_path):
    """A project whose images DVC has put into an external cache and linked back."""
    vcs.dvc(receiving.root, "init", "--quiet")
    cache = f'dir = "{tmp_path / "shared cache"}"\ntype = symlink\nshared = group'
    (receiving.root / ".dvc" / "config.local").write_text(f"[cache]\n{cache}\n")
    place(source, "cat", range(6))
    add(receiving, source)
    vcs.dvc(receiving.root, "add", "--quiet", receiving.name(receiving.images(DAY)))
    assert (receiving.images(DAY) / "cat" / "1.png").is_symlink()
    return receiving


def test_a_link_into_the_cache_is_the_file_that_it_is(linked, source):
    assert finding.count_by_class(linked, DAY) == {"cat": 6}
    assert len(add(linked, source).known) == 6  # and today's folder is compared with
    run_stages(linked, snapshot)
    images = manifest.history(linked, DAY).images
    assert set(images["image"]) == {sha256(png(number)) for number in range(6)}
    assert set(images["path"]) == {f"data/images/{DAY}/cat/{number}.png" for number in range(6)}


def test_every_other_link_is_refused_and_one_to_a_lost_object_says_so(linked, tmp_path):
    folder = linked.images(DAY) / "cat"
    (tmp_path / "other.png").write_bytes(png(9))
    (folder / "a.png").symlink_to(tmp_path / "other.png")
    (folder / "c.png").symlink_to(folder)
    (folder / "d.png").symlink_to("d.png")  # a loop
    (folder / "2.png").resolve().unlink()
    with pytest.raises(IntakeError, match="4 problems") as caught:
        run_stages(linked, snapshot)
    said = " ".join(caught.value.problems)
    assert "a.png is a link; links are not followed" in said
    assert "d.png is a link; links are not followed" in said
    assert "c.png is a link; links are not followed" in said
    assert "2.png is a link to a file that DVC's cache has lost: dvc pull" in said


def test_links_of_a_day_that_nobody_has_can_be_taken_in(linked):
    linked.images(DAY).rename(linked.images(DAYS[2]))
    (unused,) = unused_folders(ProjectState.read(linked))
    assert (unused.images, unused.folder) == (6, f"data/images/{DAYS[2]}")
    add(linked, linked.root / unused.folder, move=True)
    assert sorted(taken(linked)) == [f"cat/{number}.png" for number in range(6)]
    assert all(path.is_file() for path in linked.images(DAY).glob("*/*"))
    assert unused_folders(ProjectState.read(linked)) == []
