"""Figures that are kept: the counted ones, and counted again as soon as they may differ."""

import json

import pytest

from dayfold.figures import known, metrics
from dayfold.ledger import tables
from dayfold.ledger.tables import Evaluation
from histories import dates, write_history

DAYS = dates(known.KEPT_FROM + 2)
NEW = {day: ["cat", "dog"] if day == DAYS[0] else ["ox"] if day == DAYS[-1] else [] for day in DAYS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("known") / "scans"
    return write_history(root, days=DAYS, labels=["cat", "dog", "ox"], files=False)


@pytest.fixture
def project(made):
    made.known_figures.unlink(missing_ok=True)
    return made


@pytest.fixture
def counted(monkeypatch):
    """The days whose figures are counted, call by call."""
    calls = []
    count = metrics.day_metrics

    def watched(evaluations, days, new):
        calls.append([*new])
        return count(evaluations, days, new)

    monkeypatch.setattr(metrics, "day_metrics", watched)
    return calls


def figures(project, until=DAYS[-1]):
    return known.day_figures(project, until, NEW)


def test_kept_figures_are_the_counted_ones_in_the_same_order(project, counted):
    evaluations, days = tables.evaluations(project, DAYS[-1])
    whole = metrics.day_metrics(evaluations, days, NEW)
    counted.clear()
    for _ in range(2):
        assert json.dumps(figures(project)) == json.dumps(whole)
    assert counted == [DAYS]


def test_a_new_day_alone_is_counted(project, counted):
    figures(project, DAYS[-2])
    figures(project)
    assert counted == [DAYS[:-1], DAYS[-1:]]


def test_a_day_that_changed_is_counted_again_and_all_after_it(project, counted):
    figures(project)
    path = project.evaluation(DAYS[4])
    before = path.read_bytes()
    rows = [Evaluation(*row) for row in tables.read(path, Evaluation).iter_rows()]
    tables.write(path, Evaluation, rows[1:])
    figures(project)
    path.write_bytes(before)
    assert counted == [DAYS, DAYS[4:]]


def test_what_is_damaged_is_counted_again(project, counted):
    whole = figures(project)
    data = bytearray(project.known_figures.read_bytes())
    data[len(data) // 2] ^= 1
    project.known_figures.write_bytes(data)
    assert figures(project) == whole
    assert counted == [DAYS, DAYS]


def test_a_short_history_is_not_kept(project, counted):
    until = DAYS[known.KEPT_FROM - 2]
    assert list(figures(project, until)) == DAYS[: known.KEPT_FROM - 1]
    assert not project.known_figures.exists()
