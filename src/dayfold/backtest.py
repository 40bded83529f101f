"""A project's own history under other policies."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import yaml
from rich.table import Table

from dayfold import __version__
from dayfold.cycle.opening import inherit
from dayfold.errors import CycleError
from dayfold.figures import charts, comparison
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.tables import BacktestRun, PolicyAccuracy, Prediction
from dayfold.project import params as params_file
from dayfold.project import storage, vcs
from dayfold.project.console import Ticker
from dayfold.project.files import (
    canonical_json,
    json_bytes,
    only_one,
    sha256,
    sha256_file,
    write_bytes,
)
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params
from dayfold.proof import record

Value = str | int | float


@dataclass(frozen=True)
class Policy:
    """A way to train each day: changes of params.yaml, and two things that no param says.

    `full_passes`: as many updates as give every image of the pool as many passes as the project's
    budget gives the images of its own. `from_origin`: each day begins at the origin.
    """

    name: str
    changes: Mapping[str, Value] = field(default_factory=dict)
    full_passes: bool = False
    from_origin: bool = False


_EVERYTHING: dict[str, Value] = {"replay.policy": "all"}
_EQUAL: dict[str, Value] = {
    "weights.recent": 1.0,
    "weights.base": 1.0,
    "weights.class_balance": 0.0,
}
POLICIES = {
    policy.name: policy
    for policy in (
        Policy("naive", {"replay.policy": "uniform", "replay.size": 0}),
        Policy("replay", _EQUAL),
        Policy("project"),
        Policy("joint", _EVERYTHING),
        Policy("cumulative", {**_EVERYTHING, **_EQUAL}, full_passes=True),
        Policy("scratch", {**_EVERYTHING, **_EQUAL}, full_passes=True, from_origin=True),
        Policy(
            "frozen",
            {"train.frozen_through": "all", **_EVERYTHING, **_EQUAL},
            from_origin=True,
        ),
    )
}
"""naive: new images only. replay: new and replayed images alike. project: params.yaml as it is.
joint: all images, with the project's weights and number of updates. cumulative: all images alike,
with more updates, from yesterday's model. scratch: the same, from the origin each day. frozen: the
origin's features with a ridge head.

joint starts from yesterday's model, as project does: on every evening both have made as many
updates, and differ in the replay set alone. From the origin, as published joint training starts, it
would have one day's updates against all of theirs."""

TUNABLE = ("weights", "replay", "train")  # the sections that a backtest may change


@dataclass(frozen=True)
class History:
    """What is replayed: the project, its days, the model that the first of them starts from.

    `parent` is the folder of that model and its predictions, `origin` the origin's model.
    `manifests` are those of all days up to the last one, where they are not the project's own:
    `withdrawn` images are in none of them.
    """

    project: Project
    days: tuple[str, ...]
    parent: Path
    origin: Path
    manifests: Mapping[str, bytes] = field(default_factory=dict)
    withdrawn: int = 0


def run_days(
    history: History,
    scratch: Project,
    params: Params,
    policy: Policy,
    *,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Train and evaluate every day of a history under a policy, in the folder of `scratch`.

    The stages are those of `dvc repro`, so with a project's own params the figures are those of the
    real days, as long as nothing was withdrawn. A folder that was left half way is gone on with;
    `tick` is told of every day, those that were done before too.
    """
    changed = params_file.changed(params, policy.changes)
    done = [day for day in history.days if comparison.record(scratch, day).exists()]
    if len(done) < len(history.days):
        _lay_out(history, scratch)
        if done:
            _inherit(scratch, done[-1])
    for day in history.days:
        if day not in done:
            with (scratch.root / "log.txt").open("a") as said, redirect_stdout(said):
                facts = _run_day(history, scratch, changed, policy, day)
            write_bytes(comparison.record(scratch, day), json_bytes(facts))
            _inherit(scratch, day)
        tick()
    # What is left are counts and facts: a model is worth 90 MB here and nothing to anybody.
    shutil.rmtree(scratch.parent, ignore_errors=True)
    scratch.model.unlink(missing_ok=True)
    shutil.rmtree(scratch.activations, ignore_errors=True)


def _run_day(
    history: History, scratch: Project, params: Params, policy: Policy, day: str
) -> dict[str, Any]:
    # Imported here: they take seconds, and a table that is there already needs none of them.
    from dayfold.stages import evaluate, replay, train, weights

    _restore_yesterday(scratch)  # where an earlier run was stopped
    days = manifest.history(scratch, day).days
    parent = days[-2] if len(days) > 1 else ORIGIN
    today = params.model_copy(update={"day": day, "parent": parent})
    weights.run(scratch, today)
    replay.run(scratch, today)
    if policy.full_passes:
        today = _with_full_passes(scratch, today)
    if policy.from_origin:
        write_bytes(scratch.yesterday, scratch.parent_model.read_bytes())
        write_bytes(scratch.parent_model, history.origin.read_bytes())
    train.run(scratch, today)
    _restore_yesterday(scratch)
    evaluate.run(scratch, today)
    made = json.loads(scratch.provenance.read_bytes())
    return {
        "day": day,
        "model": made["sha256"]["model"],
        "images": made["images"]["trained"],
        "draws": made["draws"]["all"],
        "seconds": made["seconds"]["decode"] + made["seconds"]["train"],
    }


def _restore_yesterday(scratch: Project) -> None:
    if scratch.yesterday.exists():
        scratch.yesterday.replace(scratch.parent_model)


def _with_full_passes(scratch: Project, params: Params) -> Params:
    """As many updates as the budget would be if the pool of the project's size were this one."""
    images = manifest.history(scratch, params.day).split("train")
    today = images.filter(pl.col("day") == params.day).height
    usual = min(len(images), today + params.replay.size)
    factor = len(images) / max(1, usual)
    return params_file.changed(params, {"train.updates": math.ceil(params.train.updates * factor)})


def _lay_out(history: History, scratch: Project) -> None:
    if scratch.parent_model.exists():
        return
    scratch.data.mkdir(parents=True, exist_ok=True)
    for folder in ("images", "manifests"):
        link = scratch.data / folder
        if not link.is_symlink() and not (folder == "manifests" and history.manifests):
            link.symlink_to((history.project.data / folder).resolve())
    for day, data in history.manifests.items():
        write_bytes(scratch.manifest(day), data)
    for source in history.project.evaluations.glob("*.csv"):
        if source.stem < history.days[0]:
            write_bytes(scratch.evaluation(source.stem), source.read_bytes())
    # The model last: it says that the rest is there.
    for name in (scratch.parent_predictions.name, scratch.parent_model.name):
        if (history.parent / name).exists():
            write_bytes(scratch.parent / name, (history.parent / name).read_bytes())


def _inherit(scratch: Project, day: str) -> None:
    """Make a finished day's model the parent, unless that was done and the next day has begun."""
    made = json.loads(comparison.record(scratch, day).read_bytes())["model"]
    if scratch.model.exists() and sha256_file(scratch.model) == made:
        inherit(scratch)


def compare(
    project: Project,
    *,
    policies: Sequence[Policy],
    first: str | None,
    last: str | None,
    seeds: int,
    say: Callable[[str], None],
) -> tuple[Table, list[str]]:
    """Run policies over the sealed days from `first` to `last`, with several seeds each.

    Writes data/backtest/: runs.csv, cohorts.csv and curves.png. Returns them side by side, on how
    many test images the figures of the last day rest, and a sentence if the frozen start is ahead
    of the project's policy. Raises CycleError where there are fewer than two sealed days or another
    backtest runs in this project, ParamsError where a policy's changes do not fit params.yaml;
    before anything is trained.
    """
    params = params_file.read(project.params)
    for policy in policies:
        params_file.changed(params, policy.changes)
    runs, cells, tested = list[BacktestRun](), list[PolicyAccuracy](), ""
    project.backtests.mkdir(parents=True, exist_ok=True)
    rest, asked = comparison.RestsOn(), dict[str, list[pl.DataFrame]]()
    with (
        only_one(project.backtest_lock, "running a backtest"),
        TemporaryDirectory(dir=project.backtests) as folder,
    ):
        history = _sealed(project, Path(folder), first, last)
        if history.withdrawn:
            say(
                f"left out of every day: {history.withdrawn} images that were withdrawn by now; "
                "the project's own policy is not what the real days were"
            )
        total = len(policies) * seeds * len(history.days)
        say(
            f"{total} days to train: policies x seeds x days, {len(policies)} x {seeds} x "
            f"{len(history.days)}"
        )
        with Ticker("backtest", total, "days") as ticker:
            for policy in policies:
                for seed in range(params.seed, params.seed + seeds):
                    mine = params.model_copy(update={"seed": seed})
                    scratch = Project(project.backtests / _key(history, mine, policy))
                    run_days(history, scratch, mine, policy, tick=lambda: ticker.advance(1))
                    of = (policy.name, seed)
                    run, rest[of], tested = comparison.summary(scratch, mine, *of, history.days)
                    runs.append(run)
                    cells += comparison.curve(scratch, *of, history.days)
                    predicted = tables.read(scratch.predictions, Prediction)
                    asked.setdefault(policy.name, []).append(predicted)
                    ticker.line(comparison.line(run, rest))
    tables.write(project.backtest("runs"), BacktestRun, runs)
    tables.write(project.backtest("cohorts"), PolicyAccuracy, cells)
    charts.write_policies(project.backtest_curves, cells)
    said = [f"the last day's figures: on {tested}; few: too few to judge"]
    if {"frozen", "project"} <= asked.keys():
        groups = manifest.history(project, history.days[-1]).images.select("image", "group")
        frozen = asked["frozen"][0].join(groups, on="image")
        said += comparison.frozen_ahead(frozen, asked["project"])
    return comparison.table(runs, len(history.days), rest), said


def _sealed(project: Project, folder: Path, first: str | None, last: str | None) -> History:
    sealed = vcs.sealed_days(project.root)
    days = tuple(day for day in sealed if (first or day) <= day <= (last or day))
    if len(days) < 2:
        raise CycleError(
            f"A backtest needs two sealed days or more; {len(days)} of the {len(sealed)} sealed "
            f"days are from {first or 'the first'} to {last or 'the last'}.",
            hint="dayfold log shows them",
        )
    known = record.read(project, [days[0], sealed[0]])
    for name, day in (("parent", days[0]), ("origin", sealed[0])):
        storage.bring_folder(project.root, known[day].parent_md5, folder / name)
    model = project.parent_model.name
    left = corrections.manifests_without_withdrawn(project, days[-1])
    return History(project, days, folder / "parent", folder / "origin" / model, *left)


def _key(history: History, params: Params, policy: Policy) -> str:
    """A name of all that a run's figures depend on: what was left half way is found by it."""
    last = history.days[-1]
    pin = sha256_file(history.project.manifest(last))
    inputs = {
        "version": __version__,
        "policy": {**vars(policy), "name": ""},
        "params": params.model_dump(include={*TUNABLE, "seed", "evaluate"}),
        "days": list(history.days),
        "manifest": sha256(history.manifests[last]) if history.manifests else pin,
        "parent": sha256_file(history.parent / history.project.parent_model.name),
    }
    return sha256(canonical_json(inputs).encode())[:16]


def policies(names: Sequence[str], changes: Sequence[str]) -> list[Policy]:
    """Return the policies of these names, and the project's with `changes` ("key=value") made.

    All of them without any name; with changes alone, the project's beside the changed one. Raises
    CycleError that lists what is not known or cannot be changed: images keep their splits.
    """
    problems = [
        f"{name} is none of {', '.join(POLICIES)}" for name in names if name not in POLICIES
    ]
    made: dict[str, Value] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        try:
            made[key] = yaml.load(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            problems.append(f"{change}: {text!r} is not a value as YAML writes it")
            continue
        if not equals or key.split(".")[0] not in TUNABLE:
            problems.append(f"{change} does not set a key of {', '.join(TUNABLE)}")
    if problems:
        raise CycleError("This cannot be compared:", problems=problems)
    chosen = [POLICIES[name] for name in names]
    if made:
        chosen = [*(chosen or [POLICIES["project"]]), Policy(", ".join(changes), made)]
    return chosen or list(POLICIES.values())
