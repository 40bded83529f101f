"""All days' evaluations → figures, gate, plots."""

import json
from typing import Any

import polars as pl

from dayfold.errors import CycleError
from dayfold.figures import counts, evidence, gate, intervals, log, metrics, retention
from dayfold.figures.evidence import Evidence
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Check, CohortAccuracy, Confusion
from dayfold.project.files import json_bytes, write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params


def run(project: Project, params: Params) -> list[str]:
    """Read evaluations, manifests, provenance; write the day's figures, its gate, two plots."""
    counted = counts.read(project, params.day)
    if params.day not in counted.days:
        raise CycleError(f"There is no evaluation of {params.day} yet.", hint="dvc repro")
    provenance = json.loads(project.provenance.read_bytes())
    history = manifest.history(project, params.day)
    new = provenance["new_classes"]
    evaluation = tables.evaluations(project, [params.day]).filter(model=params.day)
    own = {params.day: evaluation}
    figures = log.measured(project, counted, own, {params.day: new})[params.day]
    drawn, images = provenance["draws"], provenance["images"]
    share = sum(drawn["by_class"].get(label, 0) for label in new)
    figures["new"]["share"] = share / drawn["all"] if new else None
    today_share = drawn["today"] / drawn["all"]
    old = history.split("train").filter(pl.col("day") != params.day)
    today = images["trained"] - images["replayed"]
    recency = metrics.recency(today_share, today=today, old=len(old))
    figures["draws"] = {"today": today_share, "recency": recency}
    figures["images"] = {**images, "tested": int(evaluation["images"].sum())}
    known = evidence.of(history, most=params.evaluate.max_per_cohort, origin=params.origin.classes)
    evidence.judge(figures, known, new)
    checks = gate.checks(figures, new=new, known=known, limits=params.gate)
    reasons = gate.reasons(checks)
    few = len(gate.not_judged(checks))
    # None if there are checks and none of them is judged.
    passed = None if checks and few == len(checks) else not reasons
    figures["gate"] = {"passed": passed, "not_judged": few}
    write_bytes(project.metrics, json_bytes(metrics.headline(figures)))
    write_bytes(project.figures, json_bytes(metrics.of_the_day(figures)))
    write_bytes(project.class_figures, json_bytes(metrics.by_class(figures)))
    tables.write(project.gate(params.day), Check, checks)
    corrected = history.corrections.filter(split="test")
    cells = retention.cohorts(counted, corrected.select("day", "on", "image").rows())
    tables.write(project.plot("cohorts"), CohortAccuracy, cells)
    confusion = evaluation.group_by("label", "predicted").agg(pl.col("images").sum())
    rows = confusion.sort("label", "predicted").iter_rows()
    tables.write(project.plot("confusion"), Confusion, rows)
    _print_summary(figures, known)
    print(f"gate: {gate.verdict(checks)}", *(f"  - {reason}" for reason in reasons), sep="\n")
    print(f"next: {gate.next_step(checks)}")
    said = evidence.text_rows(figures, {"average_accuracy": "ACC", "forgetting": "forgetting"})
    return [", ".join(f"{name} {value} ({ends})" for _, name, value, ends in said)]


def _print_summary(figures: dict[str, Any], known: Evidence) -> None:
    print(f"on {known.on(figures['images']['tested'])}:")
    for key, _, value, ends in evidence.text_rows(figures, log.TITLES):
        print(f"{key:19}{value:>7}   95%: {ends}")
    worse = figures["worse_than_yesterday"]
    if worse["significant"] is not None:
        drop = "drop since yesterday on the same images"
        sure = f"A significant {drop} (McNemar, {intervals.p_text(worse['p'])})."
        print(sure if worse["significant"] else f"No significant {drop}.")
    for _, name, value, ends in evidence.text_rows(figures, {"new.f1": "new classes: f1"}):
        print(f"{name} {value}, 95%: {ends}")
    for sentence in known.sentences():
        print(sentence)
