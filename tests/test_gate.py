"""The gate: what it holds against what, and what a day that fails it can still do."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS as JUNE
from dayfold.demo import DAYS
from dayfold.errors import LedgerError
from dayfold.figures import gate, intervals
from dayfold.figures.evidence import Evidence
from dayfold.history.state import ProjectState
from dayfold.ledger import tables
from dayfold.ledger.tables import Check
from dayfold.project import params
from dayfold.project.params import Gate

ONE, TWO, THREE, FOUR, FIVE = DAYS[:5]
NONE = {**dict.fromkeys(Gate.model_fields), "require_evidence": False}
ENOUGH, TOO_FEW = 21, 20  # units
UNKNOWN = intervals.UNKNOWN


def ends(low, high):
    return {"low": low, "high": high}


def figures(*, forgetting=None, flips=None, classes=None):
    """A day's figures as far as the gate looks, each as (value, low, high)."""
    of = {"forgetting": forgetting, "negative_flip_rate": flips}
    classes = classes or {}
    return {
        **{name: found and found[0] for name, found in of.items()},
        "classes": {name: {"f1": found[0]} for name, found in classes.items()},
        "interval": {
            **{name: ends(*found[1:]) if found else UNKNOWN for name, found in of.items()},
            "classes": {name: {"f1": ends(*found[1:])} for name, found in classes.items()},
        },
    }


def known(*, classes, days=2, of_all=ENOUGH, earlier=ENOUGH):
    """What figures rest on: by class, of all cohorts, and of the earlier ones."""
    return Evidence("patient", dict.fromkeys(JUNE[:days], 0), classes, of_all, earlier)


def checks(found, new=(), rests_on=None, **limits):
    rests_on = rests_on or known(classes=dict.fromkeys({*found["classes"], *new}, ENOUGH))
    return gate.checks(found, new=new, known=rests_on, limits=Gate(**{**NONE, **limits}))


def reasons(found, new=(), **limits):
    return gate.reasons(checks(found, new, **limits))


def test_only_where_the_whole_interval_is_beyond_it_a_limit_fails():
    assert reasons(figures(forgetting=(0.08, 0.04, 0.12)), max_forgetting=0.05) == []
    assert reasons(figures(forgetting=(0.08, 0.05, 0.11)), max_forgetting=0.05) == []
    (reason,) = reasons(figures(forgetting=(0.08, 0.06, 0.1)), max_forgetting=0.05)
    assert reason == "forgetting is 0.080 (0.060 to 0.100), above max_forgetting 0.05"
    (reason,) = reasons(figures(flips=(0.2, 0.1, 0.3)), max_negative_flip_rate=0.05)
    assert reason.startswith("the negative flip rate is 0.200 (0.100 to 0.300), above")
    classes = {"cat": (0.4, 0.2, 0.6), "dog": (0.4, 0.3, 0.5), "eel": (0.3, 0.1, 0.49)}
    (reason,) = reasons(figures(classes=classes), min_class_f1=0.5)
    assert reason == "F1 of class eel is 0.300 (0.100 to 0.490), below min_class_f1 0.5"
    assert reasons(figures(classes=classes), new=["cat", "dog"], min_new_f1=0.5) == []
    (reason,) = reasons(figures(classes=classes), new=["dog", "eel"], min_new_f1=0.5)
    assert reason.startswith("F1 of the new class eel is 0.300")


def test_every_reason_is_told_and_not_the_first_only():
    bad = figures(
        forgetting=(0.5, 0.4, 0.6), flips=(0.5, 0.4, 0.6), classes={"cat": (0.1, 0.0, 0.2)}
    )
    everything = {name: 0.3 if name.startswith("min") else 0.05 for name in NONE}
    everything["require_evidence"] = True
    bad["unknown"] = {"false_alarms": 0.3, "units": {"known": ENOUGH}}
    bad["interval"]["unknown"] = {"false_alarms": ends(0.2, 0.4)}
    assert len(reasons(bad, new=["cat"], **everything)) == 5
    bad["unknown"]["units"]["known"] = TOO_FEW
    assert reasons(bad, new=["cat"], **everything)[-1] == (
        "not judged, and require_evidence is set: the part of known classes' images that "
        "yesterday's model called unknown"
    )


def test_null_is_not_asked_and_what_is_undefined_is_not_judged():
    assert checks(figures(forgetting=(0.9, 0.8, 1.0)), new=["cat"]) == []
    limits = {"max_forgetting": 0.0, "min_new_f1": 1.0}
    assert checks(figures(), new=["cat"], **limits) == [
        Check("max_forgetting", "", 0.0, None, None, None, None),
        Check("min_new_f1", "cat", 1.0, None, None, None, None),
    ]
    # On the first day there is no day before to hold it against.
    first = known(classes={"cat": ENOUGH}, days=1, earlier=0)
    assert checks(figures(), rests_on=first, max_forgetting=0.0) == []


def test_what_rests_on_too_few_neither_passes_nor_fails():
    bad = figures(
        forgetting=(0.5, 0.4, 0.6),
        flips=(0.0, 0.0, 0.1),
        classes={"cat": (0.0, 0.0, 0.2), "dog": (1.0, 0.9, 1.0)},
    )
    few = known(classes={"cat": TOO_FEW, "dog": ENOUGH, "eel": 0}, earlier=TOO_FEW)
    limits = {"max_forgetting": 0.05, "max_negative_flip_rate": 0.05, "min_class_f1": 0.5}
    found = checks(bad, rests_on=few, **limits)
    judged = [(check.limit, check.label, check.passed) for check in found]
    assert judged == [
        ("max_forgetting", "", None),
        ("max_negative_flip_rate", "", 1),
        ("min_class_f1", "cat", None),
        ("min_class_f1", "dog", 1),
        ("min_class_f1", "eel", None),  # it has images, and none to test on
    ]
    assert gate.reasons(found) == []
    assert gate.verdict(found) == "2 checks passed, 3 not judged"
    # One unit more, and both fail.
    found = checks(bad, rests_on=known(classes={"cat": ENOUGH, "dog": ENOUGH}), **limits)
    assert len(gate.reasons(found)) == 2
    assert gate.verdict(found) == "2 checks failed, 2 passed"
    assert gate.verdict([]) == "no limit is set"


def test_who_requires_evidence_is_refused_a_day_without_it_and_not_judged_is_an_empty_cell(project):
    good = figures(classes={"cat": (1.0, 0.5, 1.0), "dog": (1.0, 0.9, 1.0)})
    few = known(classes={"cat": 3, "dog": ENOUGH, "eel": 0})
    found = checks(good, rests_on=few, min_class_f1=0.5, require_evidence=True)
    said = "not judged, and require_evidence is set: F1 of class cat, F1 of class eel"
    assert gate.reasons(found) == [said]
    assert gate.verdict(found) == "1 check failed, 1 passed, 2 not judged"
    tables.write(project.gate(JUNE[0]), Check, found)
    assert project.gate(JUNE[0]).read_text() == (
        "limit,label,bound,value,low,high,passed\n"
        "min_class_f1,cat,0.5,1.0,0.5,1.0,\n"
        "min_class_f1,dog,0.5,1.0,0.9,1.0,1\n"
        "min_class_f1,eel,0.5,,,,\n"
        "require_evidence,,0,2,2,2,0\n"
    )
    assert gate.read(project, JUNE[0]) == found
    enough = checks(good, min_class_f1=0.5, require_evidence=True)
    assert gate.reasons(enough) == []
    assert gate.verdict(enough) == "2 checks passed"


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1))
def test_a_figure_that_keeps_its_limit_never_fails(hits, others, limit):
    if hits + others:
        share = hits / (hits + others)
        flips = (share, *intervals.proportion(hits, hits + others).values())
        f1 = (2 * share / (1 + share), *map(float, intervals.f1(hits, hits + others)))
        found = figures(flips=flips, classes={"cat": f1})
        if share <= limit:
            assert reasons(found, max_negative_flip_rate=limit) == []
        if f1[0] >= limit:
            assert reasons(found, min_class_f1=limit) == []


GOOD = Check("min_class_f1", "cat", 0.5, 0.8, 0.7, 0.9, 1)


def test_the_last_day_that_passed_is_neither_failed_nor_unsealed(project):
    sealed = list(JUNE[:3])
    assert gate.last_passed(project, sealed) is None
    bad = GOOD._replace(value=0.1, low=0.0, high=0.2, passed=0)
    for day, check in zip(JUNE[:4], (GOOD, GOOD, bad, GOOD), strict=True):
        tables.write(project.gate(day), Check, [check])
    assert gate.read(project, JUNE[2]) == [bad]
    assert gate.last_passed(project, sealed) == JUNE[1]
    assert gate.last_passed(project, sealed[:1]) == JUNE[0]
    undefined = Check("max_forgetting", "", 0.05, None, None, None, 1)
    tables.write(project.gate(JUNE[3]), Check, [undefined, GOOD])
    assert gate.read(project, JUNE[3]) == [undefined, GOOD]
    assert gate.last_passed(project, JUNE[:4]) == JUNE[3]
    # A day without any limit passed.
    tables.write(project.gate(JUNE[2]), Check, [])
    assert gate.last_passed(project, sealed) == JUNE[2]


def test_a_line_that_no_gate_wrote_is_refused_by_name(project):
    for line in ("x", "max_forgetting", "min_class_f1,cat,0.5,,,,0"):
        tables.write(project.gate(JUNE[0]), Check, [GOOD])
        with project.gate(JUNE[0]).open("a") as file:
            file.write(f"{line}\n")
        with pytest.raises(LedgerError, match=f"gates/{JUNE[0]}.csv"):
            gate.read(project, JUNE[0])


@pytest.mark.slow
def test_a_day_that_fails_is_not_sealed_but_by_force_with_a_reason(copy, shell):
    root = copy.root
    copy.dayfold("undo", "--yes")
    strict = {"min_class_f1": 1.0, "max_forgetting": 0.5, "require_evidence": True}
    params.edit(copy.params, {f"gate.{key}": value for key, value in strict.items()})
    said = copy.dvc("repro")
    assert "Running stage 'curve'" in said
    assert "Running stage 'train'" not in said
    assert re.search(r"gate: \d+ checks? failed", said)
    assert json.loads(copy.metrics.read_bytes())["gate"] == {"passed": False}
    assert json.loads(copy.figures.read_bytes())["gate"] == {"passed": False, "not_judged": 4}
    failing = gate.reasons(gate.read(copy, THREE))
    assert failing
    said = copy.dayfold("seal", "-m", "enough", code=3)
    for reason in failing:
        assert reason in said
        assert reason in copy.dayfold("status")
    assert 'dayfold seal --force -m "why"' in said
    assert copy.git("tag", "--list", f"day/{THREE}") == ""
    assert "--force needs a message" in copy.dayfold("seal", "--force", code=1)
    assert "failed" in log_of(shell, root)[THREE]
    copy.dayfold("seal", "--force", "-m", "#7: the class is rare")
    for words in (("log", "-1", "--format=%B"), ("tag", "-l", "--format=%(contents)")):
        kept = copy.git(*words)
        assert "#7: the class is rare" in kept
        assert "Gate: forced" in kept
        for reason in failing:
            assert reason in kept
    assert gate.forced(copy) == {THREE: "#7: the class is rare"}
    assert "forced" in log_of(shell, root)[THREE]
    assert f"{THREE} was sealed by force: #7: the class is rare" in copy.dayfold("log")
    assert gate.last_passed(copy, ProjectState.read(copy).sealed) == TWO
    assert copy.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_run_and_backfill_stop_at_a_failing_day_with_a_code_of_their_own(copy, digits, tmp_path):
    params.edit(copy.params, {"gate.min_class_f1": 1.0, "gate.require_evidence": True})
    said = copy.dayfold("run", str(digits / FOUR), "--day", FOUR, code=3)
    assert f"{FOUR} does not pass the gate" in said
    assert f"{FOUR}, open" in copy.dayfold("status")
    assert ProjectState.read(copy).sealed == [ONE, TWO, THREE]
    # The next night: still that day's fault, and nothing of the next one is taken in.
    said = copy.dayfold("run", str(digits / FIVE), "--day", FIVE, code=3)
    assert f"{FOUR} is still open: it does not pass the gate" in said
    assert not copy.images(FIVE).exists()
    archive = tmp_path / "archive"
    for day in (FOUR, FIVE):
        (archive / day).mkdir(parents=True)
    said = copy.dayfold("run", str(archive), code=3)
    assert f"{FOUR} does not pass the gate" in said
    assert FIVE not in said
    params.edit(copy.params, {"gate.min_class_f1": None, "gate.require_evidence": False})
    copy.dayfold("run", str(archive))
    assert ProjectState.read(copy).sealed == [ONE, TWO, THREE, FOUR]
    assert gate.forced(copy) == {}


def log_of(shell, root):
    """Day → its line of `dayfold log`."""
    lines = shell(root, "dayfold", "log").splitlines()
    return {line.split()[0]: line for line in lines if not line.endswith("rare")}
