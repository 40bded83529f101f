"""What is given again, given to a day that is not open, or only tried leads to no dead end."""

import pytest

from builders import DAYS, add, contents, place, png, run_stages, take_in
from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.errors import IntakeError
from dayfold.ledger import corrections, splits, tables
from dayfold.ledger.corrections import Correction
from dayfold.ledger.tables import Told
from dayfold.project import vcs
from dayfold.project.console import MOST_LINES, first_few, show
from dayfold.project.files import sha256
from dayfold.stages import snapshot

DAY = DAYS[0]


@pytest.fixture
def second_day(project, tmp_path):
    """A project whose second day is open, and the folder that the first came from."""
    vcs.git(project.root, "init", "--quiet")
    take_in(project, DAYS[1], {"cat": [1, 2], "dog": [3]})
    take_in(project, DAYS[2], {"cat": [4]})
    place(tmp_path / "first", "cat", [1, 2])
    place(tmp_path / "first", "dog", [3])
    return project, tmp_path / "first"


def add_to(project, source, day, **options):
    return adding.add(project, source, day=day, options=Options(**options))


def test_an_image_whose_label_was_corrected_is_known_under_both(second_day):
    project, source = second_day
    line = Correction("relabel", sha256(png(1)), "eel", "second reading")
    corrections.write(project, DAYS[2], [line])
    place(source, "eel", [1], prefix="again ")
    delivery = add_to(project, source, DAYS[2])
    assert (len(delivery.known), delivery.refused) == (4, [])
    (corrected,) = [remark for remark in delivery.known if remark.place == "cat/1.png"]
    assert corrected.said.endswith(", corrected to 'eel' since")


def test_what_an_earlier_day_corrected_is_known_too_and_another_class_still_asked_about(
    second_day, tmp_path
):
    project, source = second_day
    line = Correction("relabel", sha256(png(1)), "eel", "second reading")
    corrections.write(project, DAYS[2], [line])
    run_stages(project, snapshot)
    take_in(project, DAYS[3], {"cat": [5]})
    assert len(add_to(project, source, DAYS[3]).known) == 3
    place(tmp_path / "other", "dog", [1])
    (changed,) = add_to(project, tmp_path / "other", DAYS[3]).changed
    assert changed.said == f"is 'eel' as data/images/{DAYS[1]}/cat/1.png, and given as 'dog'"


def test_a_refused_add_leaves_nothing_of_a_day_that_was_not_opened(project, source):
    vcs.git(project.root, "init", "--quiet")
    for number in range(MOST_LINES + 3):
        place(source, "cat", [number])[0].write_bytes(b"")
    before = contents(project.root)
    with pytest.raises(IntakeError, match="8 problems") as caught:
        add(project, source)
    assert contents(project.root) == before
    assert not project.images(DAY).exists()
    assert caught.value.problems[-1] == "and 3 more in .dvc/tmp/dayfold/remarks.csv"
    assert len(tables.read(project.remarks, Told)) == MOST_LINES + 3


def test_a_dry_run_speaks_of_what_would_be(project, source, capsys):
    vcs.git(project.root, "init", "--quiet")
    place(source, "cat", [1])
    (source / "cat" / "2.png").write_bytes(b"")
    delivery = add(project, source, dry_run=True)
    lines = delivery.said
    assert lines == [f"would open {DAY} (parent origin)"]
    show(delivery.table(DAY))
    said = capsys.readouterr().out
    assert "would be added" in said
    assert "would be refused" in said
    assert delivery.next_step().startswith("nothing was changed")


def test_a_csv_that_only_adds_groups_records_them_and_says_so(receiving, source, tmp_path, capsys):
    place(source, "cat", [1, 2])
    add(receiving, source)
    csv = tmp_path / "labels.csv"
    csv.write_text("path,label,group\ncat/1.png,cat,p1\ncat/2.png,cat,p2\n")
    delivery = add(receiving, source, labels=csv)
    assert splits.read_groups(receiving, DAY) == {sha256(png(1)): "p1", sha256(png(2)): "p2"}
    show(delivery.table(DAY))
    assert "grouped            2" in capsys.readouterr().out
    assert delivery.next_step() == "next: dvc repro"
    again = add(receiving, source, labels=csv)
    assert again.next_step() == "nothing new"


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (5, 5), (6, 6), (900, 6)])
def test_a_long_list_is_five_lines_and_how_many_more_where(count, shown):
    lines = first_few([str(number) for number in range(count)], "FILE")
    assert len(lines) == shown
    if count > MOST_LINES:
        assert lines[-1] == f"and {count - MOST_LINES} more in FILE"
