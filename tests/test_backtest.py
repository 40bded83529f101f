"""The backtest: the same code as the real days, gone on with after a stop, beside the project."""

import json
import os
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge

from builders import DAYS, contents, encoded, make_trainable, open_day, run_stages, take_in
from dayfold import backtest, demo
from dayfold.backtest import POLICIES, BacktestDays
from dayfold.cli.top import days_of
from dayfold.errors import CycleError, ImageMissingError
from dayfold.figures import comparison
from dayfold.figures.comparison import Result
from dayfold.learning import frozen, network, pixels
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.corrections import Correction
from dayfold.ledger.decode import placeholder
from dayfold.ledger.tables import BacktestRun, Prediction, Replayed
from dayfold.project import params as params_file
from dayfold.project.files import only_one, sha256_file
from dayfold.project.layout import Project
from dayfold.stages import evaluate, replay, snapshot, train, weights

ARRIVALS = (
    {"cat": range(10), "dog": range(10, 20)},
    {"cat": range(20, 30)},
    {"eel": range(30, 40), "dog": range(40, 44)},
)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Three days that were trained stage by stage, and what each made."""
    project = make_trainable(tmp_path_factory.mktemp("history") / "project", replay__size=10)
    origin = project.root / "origin"
    shutil.copytree(project.parent, origin)
    days, made = DAYS[:3], {}
    for day, images in zip(days, ARRIVALS, strict=True):
        take_in(project, day, images)
        run_stages(project, weights, replay, train, evaluate)
        made[day] = (sha256_file(project.model), project.evaluation(day).read_bytes())
        for source, target in (
            (project.model, project.parent_model),
            (project.predictions, project.parent_predictions),
        ):
            shutil.copyfile(source, target)
    return BacktestDays(project, days, origin, origin / "model.safetensors"), made


def run(history, folder, name="project", tick=lambda: None):
    scratch = Project(folder)
    params = params_file.read(history.project.params)
    backtest.run_days(history, scratch, params, POLICIES[name], tick=tick)
    return scratch


def facts(scratch, day):
    return json.loads((scratch.root / "days" / f"{day}.json").read_bytes())


def test_the_project_s_own_policy_gives_the_real_days_to_the_byte_also_after_stops(
    history, tmp_path
):
    real, made = history
    before = contents(real.project.root)

    def stop():
        raise KeyboardInterrupt

    # After the first day; then in the middle of the third, on a missing image.
    with pytest.raises(KeyboardInterrupt):
        run(real, tmp_path / "scratch", tick=stop)
    missing = next((real.project.images(DAYS[2]) / "eel").iterdir())
    kept = missing.read_bytes()
    missing.unlink()
    try:
        with pytest.raises(ImageMissingError, match="cannot be read"):
            run(real, tmp_path / "scratch")
    finally:
        missing.write_bytes(kept)
    scratch = run(real, tmp_path / "scratch")
    for day in real.days:
        model, evaluation = made[day]
        assert facts(scratch, day)["model"] == model
        assert scratch.evaluation(day).read_bytes() == evaluation
    assert not scratch.model.exists()  # models are not kept
    assert contents(real.project.root) == before
    params = params_file.read(real.project.params)
    found = comparison.summary(scratch, params, "project", 0, real.days).run
    assert found.draws == 3 * 4
    # Training images: 14, then 7 and 10 replayed, then 10 (7 + 3) and 10 replayed.
    assert found.images == 14 + (7 + 10) + (10 + 10)
    cells = comparison.curve(scratch, "project", 0, real.days)
    assert {(cell.day, cell.cohort) for cell in cells} == {
        (day, cohort) for day in real.days for cohort in real.days if cohort <= day
    }
    rows = [[cell.accuracy for cell in cells if cell.day == day] for day in real.days]
    assert found.average_accuracy == pytest.approx(np.mean(rows[-1]))
    assert found.anytime_accuracy == pytest.approx(np.mean([np.mean(row) for row in rows]))


@pytest.mark.parametrize(
    ("policy", "images", "draws", "replayed"),
    [
        ("naive", [14, 7, 10], [4, 4, 4], set()),
        ("joint", [14, 21, 31], [4, 4, 4], {"all"}),
        # 1 update of 4 for a pool of the project's size; 21 of 17 and 31 of 20 images ask for 2.
        ("cumulative", [14, 21, 31], [4, 8, 8], {"all"}),
    ],
)
def test_a_policy_trains_on_its_images_with_its_passes(
    history, tmp_path, policy, images, draws, replayed
):
    scratch = run(history[0], tmp_path / "scratch", policy)
    assert [facts(scratch, day)["images"] for day in DAYS[:3]] == images
    assert [facts(scratch, day)["draws"] for day in DAYS[:3]] == draws
    rows = tables.read(scratch.replay, Replayed)
    assert (len(rows), set(rows["reason"])) == (images[-1] - 10, replayed)


def test_what_is_withdrawn_by_now_is_trained_on_and_tested_on_no_day(history, tmp_path):
    real, _ = history
    assert corrections.manifests_without_withdrawn(real.project, DAYS[2]) == ({}, 0)
    project = Project(tmp_path / "project")
    shutil.copytree(real.project.root, project.root)
    images = manifest.history(project, DAYS[2]).images
    trained = images.filter(day=DAYS[0], split="train").row(0, named=True)
    tested = images.filter(day=DAYS[1], split="test").row(0, named=True)
    # On a fourth day, which is open; one of them was erased, so no day could read it.
    lines = [
        Correction("withdraw", trained["image"], "", "blurred"),
        Correction("erase", tested["image"], "", "consent"),
    ]
    corrections.write(project, DAYS[3], lines)
    (project.root / trained["path"]).unlink()
    (project.root / tested["path"]).write_bytes(placeholder(tested["image"]))
    left = corrections.manifests_without_withdrawn(project, DAYS[2])
    assert left[1] == 2
    without = BacktestDays(project, real.days, real.parent, real.origin, *left)
    scratch = run(without, tmp_path / "scratch")
    assert [facts(scratch, day)["images"] for day in DAYS[:3]] == [14 - 1, 7 + 10, 10 + 10]
    gone = {trained["image"], tested["image"]}
    for path, kind in ((scratch.replay, Replayed), (scratch.predictions, Prediction)):
        assert not gone & set(tables.read(path, kind)["image"])
    params = params_file.read(project.params)
    policy = POLICIES["project"]
    assert backtest._key(without, params, policy) != backtest._key(real, params, policy)


def take_in_colours(project, day, first, colours):
    """Open a day with a dozen images of each colour, no two alike."""
    open_day(project, day)
    for label, colour in colours.items():
        (project.images(day) / label).mkdir()
        for number in range(first, first + 12):
            near = tuple(min(255, part + 3 * (number % 20) + at) for at, part in enumerate(colour))
            data = encoded(Image.new("RGB", (8, 8), near))
            (project.images(day) / label / f"{number}.png").write_bytes(data)
    run_stages(project, snapshot)


def test_frozen_is_scikit_learn_s_ridge_on_the_origin_s_features(tmp_path):
    project = make_trainable(tmp_path / "project", replay__size=10)
    project.parent.rename(tmp_path / "origin")
    known = {"red": (160, 0, 0), "green": (0, 160, 0)}
    take_in_colours(project, DAYS[0], 0, known)
    take_in_colours(project, DAYS[1], 20, {"red": (130, 0, 0), "blue": (0, 0, 160)})
    origin = tmp_path / "origin" / "model.safetensors"
    real = BacktestDays(project, DAYS[:2], tmp_path / "origin", origin)
    scratch = run(real, tmp_path / "scratch", "frozen")
    # The features of every image, with no code of the backtest's.
    net = network.build(network.grown(network.load(origin), ["a"], 0), 16).eval()
    images = manifest.history(project, DAYS[1]).images
    paths = images["path"].to_list()
    shown = pixels.load(project.root, paths, images["image"].to_list(), 16)
    with torch.inference_mode():
        body = torch.nn.Sequential(*list(net.children())[:-1], torch.nn.Flatten())
        features = body(pixels.normalised(shown)).double().numpy()
    labels = np.array(images["label"])
    hits = {}
    for day in DAYS[:2]:
        here = np.array(images["day"]) <= day
        split = np.array(images["split"])
        train_, held = here & (split == "train"), here & (split == "validation")
        names = np.unique(labels[train_])
        wanted = (labels[:, None] == names).astype(float)
        centred = features[train_] - features[train_].mean(axis=0)
        scale = (centred**2).sum() / 512  # the trace is the sum of the eigenvalues
        fits = [
            Ridge(alpha=penalty * scale).fit(features[train_], wanted[train_])
            for penalty in frozen.PENALTIES
        ]
        errors = [((one.predict(features[held]) - wanted[held]) ** 2).sum() for one in fits]
        said = names[fits[int(np.argmin(errors))].predict(features).argmax(axis=1)]
        tested = here & (split == "test")
        hits[day] = [
            (said == labels)[tested & (np.array(images["day"]) == cohort)].mean()
            for cohort in DAYS[:2]
            if cohort <= day
        ]
    params = params_file.read(project.params)
    found = comparison.summary(scratch, params, "frozen", 0, real.days).run
    assert found.average_accuracy == pytest.approx(np.mean(hits[DAYS[1]])) == 1.0
    assert found.anytime_accuracy == pytest.approx(np.mean([*map(np.mean, hits.values())]))
    trained = images.filter(split="train")
    both = len(trained) + len(trained.filter(day=DAYS[0]))
    assert found.images == found.draws == both
    assert found.new_confidence > 0.5
    cells = comparison.curve(scratch, "frozen", 0, real.days)
    assert [cell.accuracy for cell in cells if cell.day == DAYS[1]] == hits[DAYS[1]]
    assert not scratch.activations.exists()


def test_frozen_is_said_to_be_ahead_by_more_than_the_interval_of_patients_only():
    # Thirty patients have two test images on each of two days; all are right but those named.
    columns = ("image", "day", "split", "label", "predicted", "confidence", "group")

    def table(wrong, images=60):
        rows = [
            (f"{day} {at}", day, "test", "a", "ab"[at in wrong], 1.0, f"{at // 2}")
            for day in DAYS[:2]
            for at in range(images)
        ]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def ahead(frozen, *trained):
        return comparison.frozen_ahead(table(frozen), [table(wrong) for wrong in trained])

    # k patients, a thirtieth each: k / 30 and 1.96 sqrt(k) / 30.
    assert "ahead of project by 0.133 ACC (95%: 0.003 to 0.264)" in ahead((), range(8))[0]
    assert ahead((), range(6)) == ahead(range(8), ()) == ahead((), ()) == []
    # Of the mean of two seeds, of which one has 8 patients wrong: 8 / 60 and 1.96 sqrt(8) / 60.
    assert "by 0.133 ACC (95%: 0.041 to 0.226)" in ahead((), range(16), ())[0]
    few = comparison.frozen_ahead(table((), 40), [table(range(40), 40)])
    assert few == []  # 20 patients are too few to judge by


def test_scratch_begins_at_the_origin_and_still_asks_yesterday_s_model_after_a_stop(
    history, tmp_path, monkeypatch
):
    real, _ = history
    whole = run(real, tmp_path / "whole", "scratch")
    pins = json.loads(whole.provenance.read_bytes())["sha256"]
    assert pins["parent"] == sha256_file(real.origin)
    trained, done = train.run, []

    def stopped(project, params):
        trained(project, params)
        done.append(params.day)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(real, tmp_path / "stopped", "scratch")
    again = run(real, tmp_path / "stopped", "scratch")
    for day in real.days:
        assert again.evaluation(day).read_bytes() == whole.evaluation(day).read_bytes()


def test_a_second_backtest_of_a_project_refuses_with_the_process_of_the_first(project):
    options = {"policies": [], "first": None, "last": None, "seeds": 1}
    with (
        only_one(project.backtest_lock, "running a backtest"),
        pytest.raises(CycleError, match=rf"running a backtest .* \(process {os.getpid()}\)"),
    ):
        backtest.compare(project, **options)


def test_all_that_cannot_be_compared_is_told_at_once():
    assert [policy.name for policy in backtest.policies([], [])] == list(POLICIES)
    with pytest.raises(CycleError) as caught:
        backtest.policies(["navie", "project"], ["seed=3", "replay.size", "replay.size=["])
    told = [problem.split()[0] for problem in caught.value.problems]
    assert told == ["navie", "seed=3", "replay.size", "replay.size=[:"]
    own, other = backtest.policies([], ["replay.size=1000", "weights.recent=2"])
    assert (own.name, other.changes) == ("project", {"replay.size": 1000, "weights.recent": 2})


def test_figures_are_marked_where_they_rest_on_too_few_in_any_of_a_policy_s_runs():
    one = BacktestRun("naive", 0, *[0.5] * 11, images=10, draws=20, seconds=1.0)
    runs = [one, one._replace(seed=1), one._replace(policy="project", new_f1=None)]
    enough = {"all": 21, "earlier": 21, "worst": 21, "new": 21}
    results = [Result(run, enough) for run in runs]
    assert not any("few" in "".join(cells) for cells in comparison.means(results).values())
    results[1] = Result(runs[1], enough | {"earlier": 20})
    results[2] = Result(runs[2], enough | {"worst": 20, "new": 0})
    found = comparison.means(results)
    for policy, columns in (
        ("naive", ["forgetting", "BWT"]),
        ("project", ["worst F1", "new conf."]),
    ):
        cells = zip(comparison.COLUMNS, found[policy], strict=True)
        assert [name for name, cell in cells if "few" in cell] == columns
    assert comparison.line(results[0]) == "naive (seed 0): ACC 0.500, forgetting 0.500, 1 s"
    few = "naive (seed 1): ACC 0.500, forgetting 0.500 few"
    assert comparison.line(results[1]).startswith(few)


def test_a_span_of_days_may_be_open_at_either_end():
    for text, span in (
        ("", (None, None)),
        ("2025-06-02..2025-06-04", ("2025-06-02", "2025-06-04")),
        ("2025-06-02..", ("2025-06-02", None)),
        ("2025-06-02", ("2025-06-02", "2025-06-02")),
    ):
        assert days_of(text) == span
    with pytest.raises(CycleError, match="'june' is not a day"):
        days_of("june..july")
    with pytest.raises(CycleError, match="2025-06-04 comes after 2025-06-02"):
        days_of("2025-06-04..2025-06-02")


@pytest.mark.slow
def test_what_cannot_be_compared_of_a_real_project_is_told_and_leaves_nothing(three_days):
    for words, said in (
        (("--set", "replay.sise=3"), "known here: policy, size"),
        (("--days", demo.DAYS[2]), "needs two sealed days or more; 1 of the 3 sealed days are"),
    ):
        assert said in three_days.dayfold("backtest", *words, code=1)
    assert not three_days.backtest_curves.exists()
