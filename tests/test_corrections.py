"""Corrections fold into the history; every line that does not fit is listed."""

import pytest

from builders import DAYS, image, open_day, place, run_stages, simulate, take_in, write_day
from dayfold.errors import IntakeError, LedgerError
from dayfold.ledger import corrections, manifest
from dayfold.ledger.corrections import Correction
from dayfold.project import params as params_file
from dayfold.stages import snapshot

HEADER = "action,image,label,reason\n"


def correct(project, *lines):
    path = project.corrections(DAYS[1])
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return corrections.read(project, DAYS[1], manifest.history(project, DAYS[0]))


def test_corrections_become_rows_that_keep_place_group_and_split(project):
    (history,) = simulate(project, [[(1, "cat", "p1"), (2, "cat", "p2"), (3, "dog", "p3")]])
    before = {row["image"]: row for row in history.images.iter_rows(named=True)}
    rows = correct(
        project, f"relabel,{image(1)},eel,second reading", f"withdraw,{image(3)},,consent"
    )
    assert [(row.action, row.image, row.label) for row in rows] == [
        ("relabel", image(1), "eel"),
        ("withdraw", image(3), ""),
    ]
    for row in rows:
        kept = before[row.image]
        assert (row.path, row.group, row.split) == (kept["path"], kept["group"], kept["split"])


def test_a_class_is_renamed_where_all_its_images_get_one_other_name(project):
    (history,) = simulate(project, [[(1, "cat", ""), (2, "cat", ""), (3, "dog", "")]])
    one, two = (Correction("relabel", image(number), "lion", "") for number in (1, 2))
    assert corrections.renamed(history, {one.image: one}, []) == {}
    both = {one.image: one, two.image: two}
    assert corrections.renamed(history, both, ["dog"]) == {"cat": "lion"}
    assert corrections.renamed(history, both, ["cat"]) == {}
    both[two.image] = two._replace(label="tiger")
    assert corrections.renamed(history, both, []) == {}


def test_an_empty_file_is_written_once_and_never_over_corrections(project):
    simulate(project, [[(1, "cat", "")]])
    earlier = manifest.history(project, DAYS[0])
    with pytest.raises(LedgerError, match=rf"{DAYS[1]}\.csv is missing"):
        corrections.read(project, DAYS[1], earlier)
    corrections.write_empty(project, DAYS[1])
    assert project.corrections(DAYS[1]).read_text() == HEADER
    assert corrections.read(project, DAYS[1], earlier) == []
    project.corrections(DAYS[1]).write_text("mine")
    corrections.write_empty(project, DAYS[1])
    assert project.corrections(DAYS[1]).read_text() == "mine"


def test_every_line_that_does_not_fit_is_listed_with_its_number(project):
    simulate(project, [[(1, "cat", ""), (2, "cat", ""), (3, "cat", "")]])
    with pytest.raises(LedgerError, match="has lines that do not fit") as caught:
        correct(
            project,
            f"rename,{image(1)},dog,",
            f"relabel,{image(9)},dog,",
            f"relabel,{image(1)},dog,",
            f"withdraw,{image(1)},,",
            f"relabel,{image(2)}, ,",
        )
    assert caught.value.what.startswith(f"data/corrections/{DAYS[1]}.csv")
    found = caught.value.problems
    assert [problem.split(":")[0] for problem in found] == ["line 2", "line 3", "line 5", "line 6"]
    assert "action 'rename' is not relabel, withdraw or erase" in found[0]
    assert f"no image '{image(9)[:12]}'… on an earlier day" in found[1]
    assert f"a second correction of data/images/{DAYS[0]}/cat/1.png" in found[2]
    assert "without a label" in found[3]
    # A class has a name that a folder may have.
    for label in (".hidden", "a/b", "a\\b", "bell\x07", "é" * 128, "cafe\u0301"):
        with pytest.raises(LedgerError) as caught:
            correct(project, f"relabel,{image(1)},{label},")
        assert f"line 2: the class {label!r}" in caught.value.problems[0]
    # What was withdrawn on an earlier day is not corrected again.
    rows = correct(project, f"withdraw,{image(2)},,blurred")
    earlier = write_day(project, DAYS[1], DAYS[0], rows)
    project.corrections(DAYS[2]).write_text(f"{HEADER}withdraw,{image(2)},,again\n")
    with pytest.raises(LedgerError) as caught:
        corrections.read(project, DAYS[2], earlier)
    (problem,) = caught.value.problems
    assert f"data/images/{DAYS[0]}/cat/2.png was withdrawn on an earlier day" in problem


def test_a_class_is_not_made_by_a_blank_or_another_case_but_may_change_its_case(project):
    simulate(project, [[(1, "cat", ""), (2, "dog", "")]])
    (row,) = correct(project, f"relabel,{image(1)}, dog ,")
    assert row.label == "dog"
    with pytest.raises(LedgerError, match="'Cat' and 'cat' differ by case or Unicode form only"):
        correct(project, f"relabel,{image(2)},Cat,")
    rows = correct(project, f"relabel,{image(1)},Cat,", f"relabel,{image(2)},Cat,")
    assert [row.label for row in rows] == ["Cat", "Cat"]


def test_a_day_of_corrections_alone_is_a_data_version_and_a_class_that_nothing_teaches_is_told(
    project, capsys
):
    before = take_in(project, DAYS[0], {"cat": range(20)})
    withdrawn = before.split("train")["image"][0]
    chosen = before.split("test")["image"][0]
    open_day(project, DAYS[1])
    lines = f"relabel,{chosen},dog,\nwithdraw,{withdrawn},,\n"
    project.corrections(DAYS[1]).write_text(HEADER + lines)
    run_stages(project, snapshot)
    assert "warning: no training image of dog: the model cannot learn it" in capsys.readouterr().out
    after = manifest.history(project, DAYS[1])
    assert after.days == DAYS[:2]
    others = set(before.images["image"]) - {chosen, withdrawn}
    labels = dict(after.images.select("image", "label").iter_rows())
    assert labels == {chosen: "dog", **dict.fromkeys(others, "cat")}


def test_what_was_corrected_today_counts_for_what_comes_today(project):
    before = take_in(project, DAYS[0], {"cat": range(4)})
    open_day(project, DAYS[1])
    ids = dict(before.images.select("path", "image").iter_rows())
    zero, one = (ids[f"data/images/{DAYS[0]}/cat/{number}.png"] for number in (0, 1))
    text = f"{HEADER}relabel,{zero},dog,\nwithdraw,{one},,blurred\n"
    project.corrections(DAYS[1]).write_text(text)
    _, other, _ = place(project.images(DAYS[1]), "dog", [0, 2, 50])
    withdrawn, _ = place(project.images(DAYS[1]), "cat", [1, 3])
    with pytest.raises(IntakeError) as caught:
        run_stages(project, snapshot)
    problems = sorted(caught.value.problems)
    assert problems[0] == f"{project.name(withdrawn)} was withdrawn"
    assert "but 'dog' here; to correct that: dayfold relabel data/images/" in problems[1]
    withdrawn.unlink()
    other.unlink()
    run_stages(project, snapshot)
    added = manifest.added(manifest.history(project, DAYS[1]), DAYS[1])
    assert added["path"].to_list() == [f"data/images/{DAYS[1]}/dog/50.png"]


def test_an_erased_image_is_withdrawn_unless_it_was_and_a_day_may_hold_that_alone(project):
    simulate(project, [[(1, "cat", ""), (2, "cat", "")]])
    rows = correct(project, f"erase,{image(1)},,consent", f"withdraw,{image(2)},,blurred")
    assert [(row.action, row.image) for row in rows] == [
        ("withdraw", image(1)),
        ("withdraw", image(2)),
    ]
    earlier = write_day(project, DAYS[1], DAYS[0], rows)
    project.corrections(DAYS[2]).write_text(HEADER + f"erase,{image(2)},,consent\n")
    assert corrections.read(project, DAYS[2], earlier) == []
    params_file.edit(project.params, {"day": DAYS[2], "parent": DAYS[1]})
    run_stages(project, snapshot)
    after = manifest.history(project, DAYS[2])
    assert (after.days, after.withdrawn) == (DAYS[:3], {image(1), image(2)})
    found = corrections.withdrawals(project)
    # The first day's line stands alone, of the second image the last one counts.
    assert {key: (day, line.action) for key, (day, line) in found.items()} == {
        image(1): (DAYS[1], "erase"),
        image(2): (DAYS[2], "erase"),
    }
    assert corrections.withdrawals(project, "withdraw").keys() == {image(2)}
