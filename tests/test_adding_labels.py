"""What labelling tools export is added; what they label anew is corrected; nothing half of it."""

import random
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

import test_fuzz
import tools
from builders import DAYS, add, contents, place, png, run_stages, take_in, taken
from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.cycle.sealing import OWN_PATHS
from dayfold.errors import CycleError, DayfoldError, IntakeError
from dayfold.ledger import corrections
from dayfold.ledger.corrections import Correction
from dayfold.ledger.intake import labels
from dayfold.ledger.intake.delivery import Delivery
from dayfold.project import vcs
from dayfold.project.console import show
from dayfold.project.files import sha256
from dayfold.stages import snapshot
from tools import NAMES

WORD = re.compile(rb'"[^"<>]*"|\d+|true|false|null|\[\]|[\w.]+')
ODD = [b"null", b"[]", b"{}", b"-1", b"1e999", b"NaN", b"true", b'""', b"[[1]]", b"9" * 5000]
ODD += [b'"\\ud800"', b'{"choices": [1, null]}', b'"../0.png"', b'"choices"', b"data", b"image"]


@pytest.fixture
def scans(tmp_path):
    return tools.images(tmp_path / "labelled")


def written(scans, name, data=None) -> Path:
    file = scans.parent / name
    file.write_bytes(tools.each(NAMES)[name] if data is None else data)
    return file


def csv_of(scans, **labels):
    rows = [f"{number[1:]}.png,{label}\n" for number, label in labels.items()]
    return written(scans, "labels.csv", ("path,label\n" + "".join(rows)).encode())


def test_of_a_second_export_other_labels_are_shown_and_change_nothing(receiving, scans, capsys):
    add(receiving, scans, labels=csv_of(scans, _0="cat", _1="dog"))
    before = contents(receiving.root)
    options = Options(labels=csv_of(scans, _0="dog", _1="dog", _2="eel"))
    delivery = adding.add(receiving, scans, day=DAYS[0], options=options)
    assert len(delivery.known) == len(delivery.images) == 1
    assert delivery.refused == []
    assert [str(one) for one in delivery.changed] == [
        f"0.png is 'cat' in the project (data/images/{DAYS[0]}/cat/0.png), but 'dog' here"
    ]
    show(delivery.table(DAYS[0]))
    assert "another label      1  0.png is 'cat' in the project" in capsys.readouterr().out
    assert delivery.next_step().endswith("the same command with --relabel")
    path = f"data/images/{DAYS[0]}/eel/2.png"
    assert contents(receiving.root) == before | {path: png(2)}


def test_relabel_moves_files_of_the_open_day_and_corrects_those_of_earlier_ones(project, scans):
    vcs.git(project.root, "init", "--quiet")
    take_in(project, DAYS[1], {"cat": [0, 1], "dog": [3]})
    take_in(project, DAYS[2], {"cat": [2]})
    export = csv_of(scans, _0="dog", _1="cat", _2="eel", _3="dog")
    options = Options(labels=export, relabel=True, dry_run=True)
    before = contents(project.root)
    assert len(adding.add(project, scans, day=DAYS[2], options=options).changed) == 2
    assert contents(project.root) == before
    options = Options(labels=export, relabel=True)
    delivery = adding.add(project, scans, day=DAYS[2], options=options)
    assert delivery.next_step() == "next: dvc repro"
    assert list(contents(project.images(DAYS[2]))) == ["eel/2.png"]
    image = sha256(png(0))
    line = Correction("relabel", image, "dog", "given in labels.csv")
    assert corrections.of_day(project, DAYS[2]) == {image: line}
    again = adding.add(project, scans, day=DAYS[2], options=options)
    assert (len(again.known), again.changed, again.refused) == (4, [], [])
    run_stages(project, snapshot)


def test_a_correction_stands_against_the_old_label_and_a_third_one_is_shown(project, scans):
    vcs.git(project.root, "init", "--quiet")
    take_in(project, DAYS[1], {"cat": [0], "dog": [1]})
    take_in(project, DAYS[2], {"cat": [2]})
    options = Options(labels=csv_of(scans, _0="dog"), relabel=True)
    adding.add(project, scans, day=DAYS[2], options=options)
    run_stages(project, snapshot)
    for day in DAYS[2:4]:  # that of the correction, and the next one
        if day == DAYS[3]:
            take_in(project, day, {"cat": [3]})
        given = {}
        for label in ("cat", "dog", "eel"):
            options = Options(labels=csv_of(scans, _0=label))
            given[label] = adding.add(project, scans, day=day, options=options)
        assert "corrected to 'dog' since" in str(given["cat"].known[0])
        assert len(given["dog"].known) == 1
        assert (given["cat"].changed, given["eel"].known) == ([], [])
        path = f"data/images/{DAYS[1]}/cat/0.png"
        assert given["eel"].changed[0].text == f"is 'dog' in the project ({path}), but 'eel' here"


def test_relabel_opens_a_day_where_there_is_something_to_correct(copy, scans):
    (path,) = list(copy.images("2025-06-02").glob("0/*"))[:1]
    (scans / "0.png").write_bytes(path.read_bytes())
    words = ("add", str(scans), "--labels", str(csv_of(scans, _0="8")), "--day", "2025-06-05")
    assert "another label      1" in copy.dayfold(*words, code=4)
    assert not copy.corrections("2025-06-05").exists()
    assert "opened 2025-06-05" in copy.dayfold(*words, "--relabel")
    assert list(corrections.of_day(copy, "2025-06-05")) == [sha256(path.read_bytes())]


def test_labels_that_differ_or_that_cannot_be_corrected_leave_all_as_it_was(receiving, scans):
    add(receiving, scans, labels=csv_of(scans, _0="cat", _1="dog"))
    (scans / "copy.png").write_bytes(png(0))
    file = written(scans, "labels.csv", b"path,label\n0.png,dog\ncopy.png,eel\n1.png,dog\n")
    delivery = add(receiving, scans, labels=file, relabel=True)
    assert (len(delivery.refused), delivery.changed, len(delivery.known)) == (2, [], 1)
    assert sorted(taken(receiving)) == ["cat/0.png", "dog/1.png"]
    add(receiving, scans, labels=csv_of(scans, _0="cat"), group=r"(cat|dog)/")
    before = contents(receiving.root)
    with pytest.raises(CycleError, match="nothing was corrected") as caught:
        add(receiving, scans, labels=csv_of(scans, _0="dog", _2="dog"), relabel=True)
    assert "would belong to another group" in caught.value.problems[0]
    assert contents(receiving.root) == before


def test_classes_are_kept_in_the_project_and_applied_at_every_add(receiving, scans, source):
    names = written(scans, "map.csv", b"theirs,ours\nfl,Femur\nFL,Femur\n")
    export = csv_of(scans, _0="FL", _1="fl", _2="Femur")
    add(receiving, scans, labels=export, classes=names, dry_run=True)
    assert not receiving.classes.exists()
    add(receiving, scans, labels=export, classes=names)
    assert sorted(taken(receiving)) == ["Femur/0.png", "Femur/1.png", "Femur/2.png"]
    assert receiving.classes.read_text() == "theirs,ours\nFL,Femur\nfl,Femur\n"
    assert receiving.name(receiving.classes.parent) in OWN_PATHS
    place(source, "fl", [9])
    add(receiving, source)
    assert "Femur/9.png" in taken(receiving)


def test_without_anybody_to_ask_guessed_columns_are_refused_with_the_command(receiving, scans):
    file = written(scans, "json-min.json")
    with pytest.raises(CycleError) as caught:
        add(receiving, scans, labels=file)
    assert caught.value.hint == "the same command with --columns path=image,label=choice"
    with pytest.raises(IntakeError, match="--columns says which columns --labels has"):
        add(receiving, scans, columns="path=image")


def test_the_untagged_of_cvat_s_imagenet_export_are_asked_about(receiving, source):
    place(source, "cat", [1])
    place(source, "no_label", [2])
    with pytest.raises(IntakeError, match="looks odd") as caught:
        add(receiving, source)
    assert "puts untagged images" in caught.value.problems[0]


def test_exit_codes_tell_whether_all_was_taken(receiving, scans):
    (receiving.root / "dvc.yaml").touch()

    def run(file, *options, code=0):
        words = ("dayfold", "add", str(scans), "--day", DAYS[0], "--labels", str(file))
        return receiving.shell(*words, *options, code=code)

    assert "→ the same command with --columns path=image,label=choice" in run(
        written(scans, "json-min.json"), code=1
    )
    said = run(scans.parent / "json-min.json", "--yes")
    assert "columns of" in said
    assert "path=image, label=choice" in said
    other = csv_of(scans, _0="dog", _1="dog")
    assert "another label      1" in run(other, code=4)
    assert "relabelled         1" in run(other, "--relabel")
    words = ("add", "--images", str(scans), "--labels", str(other), "--day", DAYS[0])
    assert "known" in receiving.dayfold(*words)
    assert "--images is another name for SRC" in run(other, "--images", str(scans), code=1)
    assert "3 problems" in run(csv_of(scans, _7="dog", _8="dog", _9="cat"), code=4)


def mutated(data, others, draw):
    """A file with bytes changed, or with words and values of it in the place of others."""
    if data.startswith(b"PAR1") or draw.random() < 0.4:
        return test_fuzz.mutated(data, others, draw)
    for _ in range(draw.choice((1, 2, 4))):
        words = list(WORD.finditer(data))
        word = draw.choice(words)
        new = draw.choice(ODD) if draw.random() < 0.6 else draw.choice(words)[0]
        data = data[: word.start()] + new + data[word.end() :]
    return data


def test_mutated_files_of_every_format_are_taken_or_refused(receiving, scans):
    """A DayfoldError at most, and nothing by half; every fifth file is added, the others read."""
    draw, good, outcomes = random.Random(1), tools.each(NAMES), {"taken": 0, "refused": 0}  # noqa: S311
    boxes = tools.coco(NAMES, [(1, 1, {"bbox": [1, 2, 3, 4]}), (2, 1, {}), (2, 2, {}), (3, 1, {})])
    shapes = tools.cvat(("0.png", tools.tag("cat") + tools.BOX), ("1.png", ""), ("2.png", ""))
    good |= {"boxes.json": boxes.encode(), "shapes.xml": shapes.encode()}
    for number in range(300 * test_fuzz.TIMES):
        name = draw.choice(list(good))
        if name.endswith("parquet") and draw.random() < 0.8:  # a process each
            continue
        file = written(scans, name, mutated(good[name], list(good.values()), draw))
        if number % 5:
            with suppress(DayfoldError):
                labels.read(file, scans, Delivery())
            continue
        shutil.rmtree(receiving.images(DAYS[0]))
        place(receiving.images(DAYS[0]), "dog", [0, 1])
        relabel, before = draw.random() < 0.5, test_fuzz.without_rejected(contents(receiving.root))
        try:
            delivery = add(receiving, scans, labels=file, relabel=relabel, yes=True)
        except DayfoldError:
            assert test_fuzz.without_rejected(contents(receiving.root)) == before
            outcomes["refused"] += 1
            continue
        outcomes["taken"] += 1
        now = {sha256(data): path for path, data in taken(receiving).items()}
        classes = {path.partition("/")[0] for path in now.values()} - {"cat", "dog"}
        assert now.keys() == {sha256(png(0)), sha256(png(1))} | {
            one.image for one in delivery.images
        }
        assert classes <= {one.label for one in [*delivery.images, *delivery.changed]}
        moved = [one.image for one in delivery.changed if now[one.image].partition("/")[0] != "dog"]
        assert bool(moved) == bool(relabel and delivery.changed)
    assert min(outcomes.values()) > 10
