"""A clinic of 12 patients and 60 images a day; a new class comes on the third. Nothing trains."""

import re
from collections import defaultdict

import pytest

from builders import DAYS, make_project, open_day, place, run_stages
from dayfold.cycle import sealing
from dayfold.ledger import manifest
from dayfold.ledger.manifest import SPLITS
from dayfold.project.files import json_bytes, write_bytes
from dayfold.stages import snapshot

COMMON = ("AC", "BPD", "FL")


@pytest.fixture
def clinic(tmp_path):
    return make_project(tmp_path / "clinic", data__group=r"/(P\d+)_")


def day_of(clinic, number, classes):
    """Take in a day: 12 patients with five images each, of the classes that are named for them."""
    open_day(clinic, DAYS[number])
    for patient, labels in enumerate(classes, start=12 * number):
        for turn in range(5):
            label = labels[turn % len(labels)]
            place(clinic.images(DAYS[number]), label, [5 * patient + turn], f"P{patient:03}_")
    run_stages(clinic, snapshot)
    return manifest.history(clinic, DAYS[number])


def patients_of(history, label):
    """Class → split → patients."""
    found = defaultdict(set)
    for row in history.images.filter(label=label).iter_rows(named=True):
        found[row["split"]].add(row["group"])
    return {split: len(found[split]) for split in SPLITS}


@pytest.mark.parametrize("several", [False, True])
def test_a_clinic_s_days_are_split_as_asked_and_its_new_class_has_a_test_patient(
    clinic, capsys, several
):
    """180 images in three days: 126, 18 and 36 are aimed at, and a patient has five."""
    common = [(COMMON[place % 3], COMMON[(place + 1) % 3])[: 1 + several] for place in range(12)]
    for number in range(2):
        history = day_of(clinic, number, common)
        assert patients_of(history, "AC")["test"] >= 1
    history = day_of(clinic, 2, [*common[:8], *[("CRL", "AC")[: 1 + several]] * 4])
    counts = dict(history.images.group_by("split").len().iter_rows())
    for split, aim in zip(SPLITS, (126, 18, 36), strict=True):
        assert abs(counts[split] - aim) <= 5
    new = patients_of(history, "CRL")
    assert new["train"] >= 1
    assert new["test"] >= 1
    said = capsys.readouterr().out
    assert len(re.findall(r"60 images \(\d+ train in \d+ groups, \d+ validation in ", said)) == 3
    line = said.splitlines()[-1]
    assert line.startswith("warning: too few test patients to judge AC (")
    assert f"CRL ({new['test']})" in line
    assert line.endswith("21 are needed; add more such patients, or judge on a later day")


def test_a_new_class_of_one_patient_is_learnt_and_it_is_said_that_it_cannot_be_judged(
    clinic, capsys
):
    common = [(COMMON[place % 3],) for place in range(12)]
    for number in range(2):
        day_of(clinic, number, common)
    capsys.readouterr()
    history = day_of(clinic, 2, [*common[:11], ("CRL",)])
    assert patients_of(history, "CRL") == {"train": 1, "validation": 0, "test": 0}
    said = capsys.readouterr().out.splitlines()
    assert (
        "warning: no test patient of CRL: not judged; add more such patients, or judge on "
        "a later day"
    ) in said
    assert any(line.startswith("warning: no validation patient of CRL: ") for line in said)


def test_the_headline_of_a_day_s_commit_says_that_it_rests_on_too_few(clinic):
    """Of forgetting the earlier patients count."""
    figures = {
        "images": {"today": 60},
        "average_accuracy": 0.6,
        "forgetting": 0.01,
        "evidence": {"all": 21, "earlier": 3},
    }
    write_bytes(clinic.figures, json_bytes(figures))
    assert sealing._subject(clinic, DAYS[1]) == (
        f"day {DAYS[1]}: 60 images, ACC 0.600, forgetting 0.010 (too few to judge)"
    )


def test_many_classes_without_a_test_patient_fold_at_five(clinic, capsys):
    day_of(clinic, 0, [(f"class {place:02}",) for place in range(12)])
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "no test patient" in one]
    names = ", ".join(f"class {place:02}" for place in range(5))
    assert line.startswith(f"warning: no test patient of {names}, and 7 more: not judged")
