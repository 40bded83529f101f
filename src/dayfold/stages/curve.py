"""curve: all days' evaluations → today's metrics.json, the gate, and what `dvc plots` draws."""

import json
from typing import Any

import polars as pl

from dayfold.errors import CycleError
from dayfold.figures import evidence, gate, metrics, retention
from dayfold.figures.evidence import FEW, Evidence
from dayfold.figures.intervals import figure
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Check, CohortAccuracy, Confusion
from dayfold.project.files import json_bytes, write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params


def run(project: Project, params: Params) -> None:
    """Read evaluations, manifests, provenance; write metrics.json, the day's gate, two plots."""
    evaluations, days = tables.evaluations(project, params.day)
    if params.day not in days:
        raise CycleError(f"There is no evaluation of {params.day} yet.", mend="dvc repro")
    provenance = json.loads(project.provenance.read_bytes())
    new = provenance["new_classes"]
    figures = metrics.day_metrics(evaluations, days, {params.day: new})[params.day]
    mine = evaluations.filter(pl.col("model") == params.day)
    drawn = provenance["draws"]
    share = sum(drawn["by_class"].get(label, 0) for label in new)
    figures["new"]["share"] = share / drawn["all"] if new else None
    figures["images"] = {**provenance["images"], "tested": int(mine["images"].sum())}
    history = manifest.history(project, params.day)
    known = evidence.of(history, most=params.evaluate.max_per_cohort)
    evidence.judge(figures, known, new)
    checks = gate.checks(figures, new=new, known=known, **params.gate.model_dump())
    reasons = gate.reasons(checks)
    figures["gate"] = {"passed": not reasons, "not_judged": len(gate.not_judged(checks))}
    # Without those of classes, which stand in classification.csv: `dvc metrics diff` shows all.
    ends = {name: part for name, part in figures["interval"].items() if name != "classes"}
    write_bytes(project.metrics, json_bytes({**figures, "interval": ends}))
    tables.write(project.gate(params.day), Check, checks)
    corrected = history.corrections.filter(split="test")
    cells = retention.cohorts(evaluations, days, corrected.select("day", "on", "image").rows())
    tables.write(project.plot("cohorts"), CohortAccuracy, cells)
    confusion = mine.group_by("label", "predicted").agg(pl.col("images").sum())
    rows = confusion.sort("label", "predicted").iter_rows()
    tables.write(project.plot("confusion"), Confusion, rows)
    _print_summary(figures, known)
    print(f"gate: {gate.verdict(checks)}")
    for reason in reasons:
        print(f"  - {reason}")


def _print_summary(figures: dict[str, Any], known: Evidence) -> None:
    print(f"on {known.on(figures['images']['tested'])}:")
    for name in ("average_accuracy", "weighted_f1", "worst_f1", "forgetting", "negative_flip_rate"):
        low, high = figures["interval"][name].values()
        few = "" if low is None or evidence.is_judged(figures, name) else f", {FEW}"
        print(f"{name:19}{figure(figures[name]):>7}   95%: {figure(low)} to {figure(high)}{few}")
    worse = figures["worse_than_yesterday"]
    if worse["significant"] is not None:
        verdict = "A significant" if worse["significant"] else "No significant"
        print(f"{verdict} drop since yesterday on the same images (McNemar, p = {worse['p']:.3f}).")
    new, (low, high) = figures["new"], figures["interval"]["new"]["f1"].values()
    if new["f1"] is not None:
        few = "" if new["judged"] else f", {FEW}"
        print(f"new classes: f1 {figure(new['f1'])}, 95%: {figure(low)} to {figure(high)}{few}")
    for sentence in known.sentences():
        print(sentence)
