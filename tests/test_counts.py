"""Counts of earlier days are kept; a figure never depends on what is kept."""

import os

import numpy as np
import pytest

from builders import DAYS, make_project
from dayfold.figures import counts
from dayfold.ledger import tables
from dayfold.ledger.tables import Evaluation

LABELS = ("cat", "dog", "eel")


def evaluate(project, day, right=3):
    """What a day's model said: `right` of 4 a class and cohort; and yesterday's of its images."""
    at = DAYS.index(day)
    rows = []
    for cohort in DAYS[: at + 1]:
        for label in LABELS[: at + 1]:
            rows += [(day, cohort, label, label, 9, right, 0.9, None)]
            rows += [(day, cohort, label, "cat" if label == "dog" else "dog", 9, 1, 0.9, None)]
    before = DAYS[at - 1] if at else "origin"
    tables.write(
        project.evaluation(day), Evaluation, [*rows, (before, day, "cat", "cat", 9, 2, 0.9, None)]
    )


def afresh(project, until):
    days = tables.evaluated(project, until)
    return counts.counted(tables.evaluations(project, days), days)


def same(found, expected):
    assert found[:2] == expected[:2]
    for mine, theirs in zip(found[2:], expected[2:], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path)
    for day in DAYS[:3]:
        evaluate(project, day)
    return project


def test_only_files_that_came_since_and_today_s_are_read(project, monkeypatch):
    same(counts.read(project, DAYS[1]), afresh(project, DAYS[1]))
    read = []
    monkeypatch.setattr(
        tables,
        "read",
        lambda path, kind, real=tables.read: read.append(path.stem) or real(path, kind),
    )
    found = counts.read(project, DAYS[2])
    assert read == list(DAYS[1:3])
    same(found, afresh(project, DAYS[2]))
    read.clear()
    found = counts.read(project, DAYS[1])
    assert read == [DAYS[1]]
    same(found, afresh(project, DAYS[1]))


def test_a_file_that_was_changed_removed_or_came_in_between_is_counted_anew(project):
    counts.read(project, DAYS[2])
    evaluate(project, DAYS[0], right=2)
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
    project.evaluation(DAYS[1]).unlink()
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
    evaluate(project, DAYS[1])
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))


def test_today_s_file_is_read_though_its_size_and_time_are_the_same(project):
    counts.read(project, DAYS[2])
    path = project.evaluation(DAYS[2])
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b",9,3,", b",9,1,"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_kept_counts_that_are_damaged_are_made_again(project, damage):
    counts.read(project, DAYS[2])
    whole = project.counts.read_bytes()
    project.counts.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    same(counts.read(project, DAYS[2]), afresh(project, DAYS[2]))
    assert project.counts.read_bytes() == whole
