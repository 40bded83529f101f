"""A project's sealed days under other policies.

A run trains each day with the stages of `dvc repro`, in a scratch project whose images are links to
the real ones. Finished days are recorded, so a stopped run goes on.
"""

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
from dayfold.history import record
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.tables import BacktestRun, PolicyAccuracy, Prediction
from dayfold.project import params as params_file
from dayfold.project import storage, vcs
from dayfold.project.console import Ticker, plural, say
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

Value = str | int | float


@dataclass(frozen=True)
class Policy:
    """A way to train each day: changes of params.yaml, and two options that are no params.

    `full_passes` raises the number of updates until every image of the pool has as many passes as
    the project's budget gives its own pool. `from_origin` starts each day from the origin.
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
_EVERYTHING_EQUAL: dict[str, Value] = {**_EVERYTHING, **_EQUAL}
POLICIES = {
    policy.name: policy
    for policy in (
        Policy("naive", {"replay.policy": "uniform", "replay.size": 0}),
        Policy("replay", _EQUAL),
        Policy("project"),
        Policy("joint", _EVERYTHING),
        Policy("cumulative", _EVERYTHING_EQUAL, full_passes=True),
        Policy("scratch", _EVERYTHING_EQUAL, full_passes=True, from_origin=True),
        Policy("frozen", {"train.frozen_through": "all", **_EVERYTHING_EQUAL}, from_origin=True),
    )
}
"""naive: new images only. replay: new and replayed images alike. project: params.yaml as it is.
joint: all images, with the project's weights and number of updates. cumulative: all images alike,
with more updates, from yesterday's model. scratch: the same, from the origin each day. frozen: the
origin's features with a ridge head.

joint starts from yesterday's model, as project does, so both have made equally many updates and
differ in the replay set alone. Published joint training starts from the origin: it would have one
day's updates against those of all days."""

TUNABLE = ("weights", "replay", "train")  # sections that --set may change


@dataclass(frozen=True)
class BacktestDays:
    """The sealed days that a backtest trains again.

    `parent` is the folder with the model and predictions from before the first day; `origin` is the
    origin's model. If images were withdrawn later, `manifests` has all days' without them.
    """

    project: Project
    days: tuple[str, ...]
    parent: Path
    origin: Path
    manifests: Mapping[str, bytes] = field(default_factory=dict)
    withdrawn: int = 0


def run_days(
    history: BacktestDays,
    scratch: Project,
    params: Params,
    policy: Policy,
    *,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Train and evaluate every day of a history under a policy, in the folder of `scratch`.

    Days that an earlier run finished are skipped; `tick` is called for them too.
    """
    changed = params_file.with_changes(params, policy.changes)
    done = [day for day in history.days if comparison.finished_day(scratch, day).exists()]
    if len(done) < len(history.days):
        _prepare(history, scratch)
        if done:
            _inherit(scratch, done[-1])
    for day in history.days:
        if day not in done:
            with (scratch.root / "log.txt").open("a") as output, redirect_stdout(output):
                facts = _run_day(history, scratch, changed, policy, day)
            write_bytes(comparison.finished_day(scratch, day), json_bytes(facts))
            _inherit(scratch, day)
        tick()
    # Only counts and facts are needed from now on; a model takes 90 MB.
    shutil.rmtree(scratch.parent, ignore_errors=True)
    scratch.model.unlink(missing_ok=True)
    shutil.rmtree(scratch.activations, ignore_errors=True)


def _run_day(
    history: BacktestDays, scratch: Project, params: Params, policy: Policy, day: str
) -> dict[str, Any]:
    # Slow to import, and a finished run needs none of them.
    from dayfold.stages import evaluate, replay, train, weights

    _restore_yesterday(scratch)  # if an earlier run was stopped
    days = manifest.history(scratch, day).days
    parent = days[-2] if len(days) > 1 else ORIGIN
    today = params.model_copy(update={"day": day, "parent": parent})
    weights.run(scratch, today)
    replay.run(scratch, today)
    if policy.full_passes:
        # Updates in proportion to all images, not to the usual pool.
        images = manifest.history(scratch, day).split("train")
        usual = min(len(images), images.filter(day=day).height + params.replay.size)
        updates = math.ceil(params.train.updates * (len(images) / max(1, usual)))
        today = params_file.with_changes(today, {"train.updates": updates})
    if policy.from_origin:
        write_bytes(scratch.yesterday, scratch.parent_model.read_bytes())
        write_bytes(scratch.parent_model, history.origin.read_bytes())
    train.run(scratch, today)
    _restore_yesterday(scratch)
    evaluate.run(scratch, today)
    provenance = json.loads(scratch.provenance.read_bytes())
    return {
        "day": day,
        "model": provenance["sha256"]["model"],
        "images": provenance["images"]["trained"],
        "draws": provenance["draws"]["all"],
        "seconds": provenance["seconds"]["decode"] + provenance["seconds"]["train"],
    }


def _restore_yesterday(scratch: Project) -> None:
    if scratch.yesterday.exists():
        scratch.yesterday.replace(scratch.parent_model)


def _prepare(history: BacktestDays, scratch: Project) -> None:
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
    # The model is written last: it marks the folder as complete.
    for target in (scratch.parent_predictions, scratch.parent_model):
        if (source := history.parent / target.name).exists():
            write_bytes(target, source.read_bytes())


def _inherit(scratch: Project, day: str) -> None:
    """Make a finished day's model the parent, unless the next day has replaced it already."""
    model = json.loads(comparison.finished_day(scratch, day).read_bytes())["model"]
    if scratch.model.exists() and sha256_file(scratch.model) == model:
        inherit(scratch)


def compare(
    project: Project,
    policies: Sequence[Policy],
    *,
    first: str | None,
    last: str | None,
    seeds: int,
) -> tuple[Table, list[str]]:
    """Run policies over the sealed days from `first` to `last`, with several seeds each.

    Writes data/backtest/: runs.csv, cohorts.csv and curves.png. Returns the comparison as a table,
    and notes below it. Before anything is trained it raises CycleError where there are fewer than
    two sealed days or another backtest runs in this project, and ParamsError where a policy's
    changes do not fit params.yaml.
    """
    params = params_file.read(project.params)
    for policy in policies:
        params_file.with_changes(params, policy.changes)
    results, cells = list[comparison.Result](), list[PolicyAccuracy]()
    predictions = dict[str, list[pl.DataFrame]]()
    project.backtests.mkdir(parents=True, exist_ok=True)
    with (
        only_one(project.backtest_lock, "running a backtest"),
        TemporaryDirectory(dir=project.backtests) as folder,
    ):
        history = _sealed(project, Path(folder), first, last)
        if history.withdrawn:
            say(
                f"left out of every day: {plural(history.withdrawn, 'image')} withdrawn by now, so "
                "the policy project differs from the sealed days"
            )
        total = len(policies) * seeds * len(history.days)
        say(
            f"{plural(total, 'day')} to train: {plural(len(policies), 'policy')} x "
            f"{plural(seeds, 'seed')} x {plural(len(history.days), 'day')}"
        )
        with Ticker("backtest", total, "days") as ticker:
            for policy in policies:
                for seed in range(params.seed, params.seed + seeds):
                    seeded = params.model_copy(update={"seed": seed})
                    scratch = Project(project.backtests / _key(history, seeded, policy))
                    run_days(history, scratch, seeded, policy, tick=lambda: ticker.advance(1))
                    of = (policy.name, seed)
                    results.append(comparison.summary(scratch, seeded, *of, history.days))
                    cells += comparison.curve(scratch, *of, history.days)
                    predicted = tables.read(scratch.predictions, Prediction)
                    predictions.setdefault(policy.name, []).append(predicted)
                    ticker.line(comparison.line(results[-1]))
    tables.write(project.backtest("runs"), BacktestRun, [one.run for one in results])
    tables.write(project.backtest("cohorts"), PolicyAccuracy, cells)
    charts.write_policies(project.backtest_curves, cells)
    notes = [f"figures of the last day: on {results[-1].tested}; few: too few to judge"]
    if {"frozen", "project"} <= predictions.keys():
        groups = manifest.history(project, history.days[-1]).images.select("image", "group")
        frozen = predictions["frozen"][0].join(groups, on="image")
        notes += comparison.frozen_ahead(frozen, predictions["project"])
    return comparison.table(results, len(history.days)), notes


def _sealed(project: Project, folder: Path, first: str | None, last: str | None) -> BacktestDays:
    sealed = vcs.sealed_days(project.root)
    days = tuple(day for day in sealed if (first or day) <= day <= (last or day))
    if len(days) < 2:
        raise CycleError(
            f"A backtest needs two sealed days or more; {len(days)} of the {len(sealed)} sealed "
            f"days are from {first or 'the first'} to {last or 'the last'}.",
            hint="dayfold log shows them",
        )
    recorded = record.read(project, [days[0], sealed[0]])
    for name, day in (("parent", days[0]), ("origin", sealed[0])):
        storage.fetch_folder(project.root, recorded[day].parent_md5, folder / name)
    origin = folder / "origin" / project.parent_model.name
    left = corrections.manifests_without_withdrawn(project, days[-1])
    return BacktestDays(project, days, folder / "parent", origin, *left)


def _key(history: BacktestDays, params: Params, policy: Policy) -> str:
    pin = history.project.manifest(history.days[-1]).read_bytes()
    inputs = {
        "version": __version__,
        "policy": {**vars(policy), "name": ""},
        "params": params.model_dump(include={*TUNABLE, "seed", "evaluate"}),
        "days": list(history.days),
        "manifest": sha256(history.manifests.get(history.days[-1], pin)),
        "parent": sha256_file(history.parent / history.project.parent_model.name),
    }
    return sha256(canonical_json(inputs).encode())[:16]


def policies(names: Sequence[str], changes: Sequence[str]) -> list[Policy]:
    """Return the policies of these names, and the project's own with `changes` ("key=value").

    Without names it returns all policies or, if there are changes, the project's own and the
    changed one. Raises CycleError that lists unknown names and keys that cannot be changed.
    """
    known = ", ".join(POLICIES)
    problems = [f"{name} is not one of {known}" for name in names if name not in POLICIES]
    values: dict[str, Value] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        try:
            values[key] = yaml.load(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            problems.append(f"{change}: {text!r} is not a value as YAML writes it")
            continue
        if not equals or key.split(".")[0] not in TUNABLE:
            problems.append(f"{change} does not set a key of {', '.join(TUNABLE)}")
    if problems:
        raise CycleError("This cannot be compared:", problems=problems)
    chosen = [POLICIES[name] for name in names]
    if values:
        chosen = [*(chosen or [POLICIES["project"]]), Policy(", ".join(changes), values)]
    return chosen or list(POLICIES.values())
