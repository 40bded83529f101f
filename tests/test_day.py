"""A day, end to end, with the real git, DVC and torch."""

import csv
import json

import pytest
import torch
import yaml
from sklearn.metrics import classification_report
from torchvision.models import resnet18

from builders import IDENTITY, run_stages, table
from dayfold import create
from dayfold.cycle import adding
from dayfold.demo import DAYS
from dayfold.ledger import manifest
from dayfold.project import params as params_file
from dayfold.project.files import dotted
from dayfold.project.layout import Project
from dayfold.stages import curve, evaluate, replay, snapshot, train, weights

pytestmark = pytest.mark.slow
ONE, TWO, THREE = DAYS[:3]


def test_a_day_is_one_commit_with_one_tag_and_its_pipeline_never_grows(
    three_days, repository, digits
):
    assert three_days.dvc_yaml.read_bytes() == (repository / "dvc.yaml").read_bytes()
    log = three_days.git("log", "--format=%s %D", "--reverse").splitlines()
    assert log[0] == "Begin a dayfold project "
    for day, line in zip((ONE, TWO, THREE), log[1:], strict=True):
        figures = json.loads(three_days.git("show", f"day/{day}:metrics.json"))
        said = f"{figures['images']['today']} images, ACC {figures['average_accuracy']:.3f}"
        if day != ONE:
            said += f", forgetting {figures['forgetting']:.3f}"
        assert line.startswith(f"day {day}: {said} ")
        assert f"tag: day/{day}" in line
    body = three_days.git("log", "-1", "--format=%b", f"day/{ONE}")
    assert body.strip() == "the first day"
    assert three_days.git("status", "--porcelain") == ""
    # Images that were dropped in by hand are a day like any other.
    dropped = manifest.added(manifest.history(three_days, THREE), TWO)
    assert len(dropped) == len(list((digits / TWO).glob("*/*.png")))
    assert set(dropped["split"]) == {"train", "validation", "test"}


def test_dvc_compares_two_days_by_metrics_and_params(three_days):
    def diff(kind, *words, days=(f"day/{ONE}", f"day/{THREE}")):
        return json.loads(three_days.dvc(kind, "diff", "--json", *days, *words))

    everything = diff("metrics", "--all")
    assert everything.keys() == {"metrics.json"}
    figures = everything["metrics.json"]
    assert len(figures) <= 20
    assert figures["images.today"]["old"] == len(list(three_days.images(ONE).glob("*/*")))
    assert figures["images.today"]["new"] == len(list(three_days.images(THREE).glob("*/*")))
    assert figures["average_accuracy"].keys() >= {"old", "new", "diff"}
    assert figures["gate.passed"]["new"] is True
    # Other figures by their own files.
    names = ("data/metrics/classes.json", "data/metrics/day.json")
    classes, day = map(diff("metrics", "--targets", *names).get, names)
    assert classes["7.f1"]["old"] is None
    assert 0 <= classes["7.interval.f1.low"]["new"] <= classes["7.f1"]["new"] <= 1
    assert day["interval.average_accuracy.low"].keys() >= {"old", "new", "diff"}
    changed = diff("params", days=(f"day/{ONE}", f"day/{TWO}"))["params.yaml"]
    assert changed["day"] == {"old": ONE, "new": TWO}
    assert changed["parent"] == {"old": "origin", "new": ONE}


def test_plots_diff_draws_all_four_charts_of_both_days_and_exp_show_lists_them(
    three_days, tmp_path
):
    words = ("dvc", "plots", "diff", f"day/{TWO}", f"day/{THREE}", "--out", str(tmp_path / "page"))
    three_days.shell(*words)
    page = (tmp_path / "page" / "index.html").read_text()
    for title in ("Accuracy by cohort", "Confusion matrix", "F1 by class", "Training loss"):
        assert title in page
    assert page.count(f"day/{TWO}") > 3 < page.count(f"day/{THREE}")
    said = three_days.dvc("exp", "show", "-T", "--csv")
    shown = list(csv.DictReader(said.splitlines()))
    # The last day is HEAD: DVC shows it by its branch.
    assert [row["rev"] for row in shown][:3] == ["workspace", f"day/{ONE}", f"day/{TWO}"]
    assert [row["day"] for row in shown][:3] == [THREE, ONE, TWO]
    assert all(0 <= float(row["average_accuracy"]) <= 1 for row in shown)


def test_an_experiment_with_another_replay_size_runs_in_place(copy):
    copy.dvc("exp", "run", "-S", "replay.size=60", "replay")
    assert len(copy.replay.read_text().splitlines()) == 61
    assert f"{THREE} is sealed already" in copy.dayfold("seal", code=1)


def test_no_param_hides_from_the_run_cache(three_days):
    """DVC leaves keys called size or nfiles out of the run cache's key, at any depth."""
    params = yaml.safe_load(three_days.params.read_text())
    for name, stage in yaml.safe_load(three_days.dvc_yaml.read_text())["stages"].items():
        for key in stage["params"]:
            value = params
            for part in key.split("."):
                value = value[part]
            below = {part for one in dotted({"": value}) for part in one.split(".")[1:]}
            assert not below & {"size", "nfiles"}, f"{name}: {key}"


def test_the_scores_of_classes_are_those_of_scikit_learn(three_days):
    held = table(three_days.predictions)
    tested = [(row["label"], row["predicted"]) for row in held if row["split"] == "test"]
    truth, predicted = zip(*tested, strict=True)
    classes = sorted(set(truth))
    expected = classification_report(
        truth, predicted, labels=classes, output_dict=True, zero_division=0
    )
    rows = table(three_days.plot("classification"))
    assert [row["label"] for row in rows] == classes == list("01234567")
    for row in rows:
        scores = expected[row["label"]]
        assert float(row["f1"]) == pytest.approx(scores["f1-score"])
        for name in ("precision", "recall", "support"):
            assert float(row[name]) == pytest.approx(scores[name])
    figures = json.loads(three_days.metrics.read_bytes())
    assert figures["weighted_f1"] == pytest.approx(expected["weighted avg"]["f1-score"])
    assert figures["images"]["tested"] == len(tested)


def test_a_team_starts_from_its_own_classifier(tmp_path, digits, monkeypatch):
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    torch.save(resnet18(weights=None, num_classes=2).state_dict(), tmp_path / "team.pth")
    project = Project(tmp_path / "scans")
    create.init(project.root, create.Options(str(tmp_path / "team.pth"), ["7", "0"], 16))
    quick = {"train.updates": 2, "train.batch_size": 4}
    params_file.edit(project.params, quick)
    adding.add(project, digits / ONE, day=ONE)
    run_stages(project, snapshot, weights, replay, train, evaluate, curve)
    assert json.loads(project.provenance.read_bytes())["classes"] == list("701") + list("2345")
    rows = table(project.evaluation(ONE))
    # The origin knew two classes, so its answers on the first day's images are there to compare.
    assert {row["model"] for row in rows} == {ONE, "origin"}
    assert {row["predicted"] for row in rows if row["model"] == "origin"} <= {"7", "0"}
    assert {row["parent_correct"] != "" for row in rows if row["model"] == ONE} == {True}
