"""A CSV of labels is checked row by row; what it names is what is checked."""

import os
import unicodedata
from pathlib import Path

import pytest

from builders import png
from dayfold.errors import IntakeError
from dayfold.ledger.intake import labels
from dayfold.ledger.intake.delivery import Delivery


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "scans"
    for name in ("a/1.png", "a/b/2.png", "3.png"):
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(int(path.stem)))
    return made


def read(folder, text, encoding="utf-8"):
    file = folder.parent / "labels.csv"
    file.write_bytes(text.encode(encoding))
    delivery = Delivery()
    found = labels.read(file, folder, delivery)
    return found, delivery


def test_rows_name_the_files_of_any_depth_their_class_and_group(folder):
    found, delivery = read(folder, "path,label,group\na/1.png,cat,p1\na/b/2.png,dog,\n3.png,cat,p2")
    assert [(one.path.relative_to(folder).as_posix(), one.label, one.group) for one in found] == [
        ("a/1.png", "cat", "p1"),
        ("a/b/2.png", "dog", ""),
        ("3.png", "cat", "p2"),
    ]
    assert (delivery.refused, delivery.warned) == ([], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(folder, encoding, end):
    found, _ = read(folder, f'path,label{end}"a/1.png","cat, big"{end}3.png, dog {end}', encoding)
    assert [(one.place, one.label) for one in found] == [("a/1.png", "cat, big"), ("3.png", "dog")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("nothing.png,cat", "is not there"),
        ("a\\1.png,cat", "is not there; write / between folders"),
        ("../scans/3.png,cat", "is no path inside the folder"),
        ("/etc/passwd,cat", "is no path inside the folder"),
        (",cat", "is no path inside the folder"),
        ("a/b,cat", "is not a file"),
        ("link.png,cat", "is a link or behind one; links are not followed"),
        ("linked/2.png,cat", "is a link or behind one; links are not followed"),
        ("a/1.png,", "the label '' is no class name"),
        ("a/1.png,cat/dog", "the label 'cat/dog' is no class name"),
        ("a/1.png,..", "the label '..' is no class name"),
        ('a/1.png,"c\na"', "the label 'c\\\\na' has unprintable letters"),
        ("a/1.png,c\0t", "the label 'c\\\\x00t' has unprintable letters"),
        ("3.png,dog", "stands on line 2 already"),
        ("./3.png,dog", "stands on line 2 already"),
        (".hidden.png,cat", "is hidden"),
        ("a/Thumbs.db,cat", "is hidden, or of what desktops leave behind"),
        ("a/1.png," + "c" * 256, f"the label {'c' * 256!r} is too long for a class name"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_the_others_are_taken(folder, row, reason):
    (folder / "link.png").symlink_to(folder / "3.png")
    (folder / "linked").symlink_to(folder / "a" / "b")
    for clutter in (".hidden.png", "a/Thumbs.db"):
        (folder / clutter).write_bytes(png(4))
    found, delivery = read(folder, f"path,label\n3.png,cat\n{row}\na/b/2.png,cat\n")
    assert [one.place for one in found] == ["3.png", "a/b/2.png"]
    (refused,) = delivery.refused
    assert refused.said.startswith(reason)
    assert "(line " in refused.place


def test_a_path_in_the_other_unicode_form_is_found(folder):
    name = unicodedata.normalize("NFD", "é.png")
    (folder / name).write_bytes(png(9))
    found, _ = read(folder, "path,label\né.png,cat\n")
    assert [one.path.name for one in found] == [name]


def test_files_that_no_row_names_are_counted_and_the_table_itself_is_none(folder, monkeypatch):
    (folder / ".hidden.png").write_bytes(png(8))
    (folder / "labels.csv").write_text("path,label\n3.png,cat\n")
    monkeypatch.chdir(folder)
    delivery = Delivery()
    assert len(labels.read(Path("labels.csv"), folder, delivery)) == 1
    said = ". holds 2 files that labels.csv does not name; they are left"
    assert list(map(str, delivery.warned)) == [said]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,label\n3.png,Z\xe4hne\n", "cannot be read as CSV"),
        ("", "has the columns ''"),
        ("path;label\n3.png;cat\n", "has the columns 'path;label'"),
        ("path\tlabel\n3.png\tcat\n", r"has the columns 'path\\tlabel'"),
        ("label,path\ncat,3.png\n", "has the columns 'label,path'"),
        ("path,label\n3.png\n", "rows that do not fit"),
        ("path,label\n3.png,cat,p1\n", "rows that do not fit"),
        ('path,label\n"3.png,cat\n', "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_whole(folder, text, reason):
    with pytest.raises(IntakeError, match=reason) as caught:
        read(folder, text, "latin-1")
    assert "path,label,group" in caught.value.hint


def test_what_is_not_there_or_a_pipe_without_anybody_at_its_other_end_is_refused(folder):
    os.mkfifo(folder / "pipe")
    for name, reason in (("pipe", "is not a file"), ("nowhere", "cannot be read: No such file")):
        with pytest.raises(IntakeError, match=reason):
            labels.read(folder / name, folder, Delivery())
