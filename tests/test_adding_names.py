"""`add` takes names as they are, escapes what it prints, and mixes no two of them up."""

import os
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest

from builders import DAYS, add, place, png, rejected, run_stages, taken
from dayfold.ledger import manifest
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.intake.finding import walk
from dayfold.stages import snapshot

DAY = DAYS[0]
ODD = [
    "'quotes' and \"more\".png",
    "-rf.png",
    "=cmd().png",
    "[red]x[red].png",
    "a,b;c.png",
    "$(reboot).png",
    "%s%d{}.png",
    "x" * 251 + ".png",
    "no ending",
    "日本語.png",
    "at 3.04\u202fPM.png",  # as macOS names its screenshots
]


def test_odd_names_come_through_as_they_are_and_are_shown_escaped(receiving, source):
    turned = "gnp.\u202eexe.png"  # turns the terminal's text round
    names = (*ODD, turned)
    (source / "-=dog").mkdir()
    for number, name in enumerate(names):
        (source / "-=dog" / name).write_bytes(png(number))
    add(receiving, source)
    assert taken(receiving) == {f"-=dog/{name}": png(number) for number, name in enumerate(names)}
    run_stages(receiving, snapshot)
    paths = set(manifest.history(receiving, DAY).images["path"])
    assert paths == {f"data/images/{DAY}/-=dog/{name}" for name in names}
    (known,) = [one for one in add(receiving, source).known if "exe.png" in one.place]
    shown = "-=dog/gnp.\\u202eexe.png"
    assert str(known) == f"{shown} has the same bytes as data/images/{DAY}/{shown}"


def test_unprintable_names_are_listed_escaped_and_stay(receiving, source, capsys):
    place(source, "cat", [1])
    names = [b"two\nlines.png", b"\x1b[2Jclear.png", b"\xff.png", b"tab\t.png"]
    for name in names:
        with open(os.fsencode(source / "cat") + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(png(9))
    delivery = add(receiving, source)
    assert len(delivery.refused) == 4
    assert all(str(remark).isprintable() for remark in delivery.refused)
    text = receiving.rejected(DAY).read_text()
    assert len(text.splitlines()) == 5
    assert "cat/two\\nlines.png" in text
    assert "cat/\\udcff.png" in text


def test_no_cell_of_the_list_is_a_formula(receiving, source):
    place(source, "cat", [1])
    labels = ("+2", "-3", "=1+1", "@sum")
    for label in labels:
        (source / label).mkdir()
        (source / label / "x.png").write_bytes(b"")
    add(receiving, source, yes=True)
    assert [row["path"] for row in rejected(receiving)] == [f"./{label}/x.png" for label in labels]


def test_names_are_composed_and_never_differ_by_case_only(receiving, source):
    (source / "cat").mkdir()
    decomposed = unicodedata.normalize("NFD", "é.png")
    for number, name in enumerate((decomposed, "É.png", "a.png", "A.png")):
        (source / "cat" / name).write_bytes(png(number))
    add(receiving, source)
    names = [path.partition("/")[2] for path in taken(receiving)]
    assert "a.png" in names or "A.png" in names
    assert all(unicodedata.is_normalized("NFC", name) for name in names)
    assert len({name.casefold() for name in names}) == 4
    assert sorted(taken(receiving).values()) == sorted(map(png, range(4)))


def test_a_class_whose_composed_name_fits_no_folder_is_refused(receiving, source):
    place(source, "cat", [1])
    place(source, "\u0958" * 85, [2])  # 255 bytes, which NFC makes 510
    (refused,) = add(receiving, source).refused
    assert refused.text == "is too long for a class name (more than 255 bytes)"
    assert taken(receiving) == {"cat/1.png": png(1)}


@pytest.fixture
def elsewhere():
    """A folder that every user can come to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_cannot_be_read_is_listed_and_the_others_are_taken(elsewhere):
    place(elsewhere, "cat", [1])
    place(elsewhere, "dog", [2])
    (elsewhere / "dog").chmod(0)
    delivery = Delivery()
    me = os.geteuid()
    if me == 0:  # nothing is closed to root
        os.seteuid(65534)
    try:
        found = walk(elsewhere, delivery)
    finally:
        os.seteuid(me)
        (elsewhere / "dog").chmod(0o755)
    assert [one.place for one in found] == ["cat/1.png"]
    assert list(map(str, delivery.refused)) == ["dog cannot be read (Permission denied)"]


def test_a_name_that_an_old_locale_misreads_is_refused_with_the_way_out():
    code = (
        "import os; from dayfold.ledger.names import misread\n"
        "print([misread(os.fsdecode(name.encode())) for name in ('big', 'gro\\u00df')])"
    )
    said = subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}, text=True
    )
    misread = "has a name that this locale (ascii) misreads: export PYTHONUTF8=1"
    assert said == f"{['', misread]}\n"
