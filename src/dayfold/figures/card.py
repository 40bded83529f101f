"""The model card of a day.

After Mitchell et al., "Model cards for model reporting", 2019.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from dayfold.figures import evidence, gate, intervals, log
from dayfold.figures.day import Day
from dayfold.figures.evidence import Evidence
from dayfold.figures.intervals import figure
from dayfold.figures.log import MEANINGS, DayLine
from dayfold.ledger import tables
from dayfold.ledger.manifest import SPLITS, History
from dayfold.project.console import plural
from dayfold.project.files import dotted
from dayfold.project.params import named_network


def card(
    day: Day,
    live: Sequence[str],
    metadata: Mapping[str, Any],
    *,
    limit: float | str,
    erased: Sequence[str],
) -> str:
    """Return a day's card as Markdown, from recorded facts only.

    `metadata` is that of its model, `live` are the classes that it can predict. `limit` is the
    distance above which an image is unknown, or why there is none. `erased` are paths of images.
    """
    line, known, history = day.line, day.evidence, day.history
    checks, forced = gate.read(day.project, line.day), gate.forced(day.project)
    word = log.verdicts(day.project, [line], forced)[line.day]
    verdict, reasons = gate.verdict(checks), gate.reasons(checks)
    verdict = verdict if word == "ok" or "/" in word else f"{word} ({verdict})"
    provenance = json.loads(day.file(day.project.provenance) or b"{}")
    recipe, days, tested = metadata["recipe"], history.days, (line.figures or {})["classes"]
    retired = [_plain(label) for label in metadata["classes"] if label not in live]
    parts = [
        f"# Model card: {_plain(day.project.root.name)}, {line.day}",
        f"A {named_network(metadata)} that tells {plural(len(live), 'class')} apart in images of "
        f"{recipe['image_size_px']} x {recipe['image_size_px']} pixels. Trained on {line.day} from "
        f"the model of {provenance['parent']}, after {plural(len(days), 'day')} of images "
        f"({days[0]} to {days[-1]}). Gate: {verdict}.",
        "## Figures",
        f"On {known.on(sum(scores['images'] for scores in tested.values()))}, which no model of "
        "this project was trained on. The 95% intervals assume independent images; docs/metrics.md "
        "of dayfold defines every figure.",
        _figures(line),
        "## Classes and data",
        _classes(line, known, history, live),
        f"Retired, because no image has their label any more: {', '.join(retired)}. The model "
        "keeps their outputs, so the other classes keep their positions, and never answers with "
        "them."
        if retired
        else "",
        _data(history, provenance),
        "## Confidence",
        _confidence(metadata),
        "## Unknown images",
        _unknown(day, limit),
        "## Limits",
        "\n".join(f"- {sentence}" for sentence in _limits(history, known, live, reasons)),
        "## How to make it again",
        f"It cannot be made again, as {plural(len(erased), 'image')} that it was made with were "
        "erased since."
        if erased
        else "A clone of the project makes it again from the pins below, on such a machine to the "
        "bit. Missing files come from the project's DVC remote, if they were pushed there:\n\n"
        f"```\ndayfold reproduce {line.day}\n```",
        _table(("pinned", "sha256"), ((k, f"`{v}`") for k, v in provenance["sha256"].items())),
        _table(("machine", ""), ((k, str(v)) for k, v in provenance["fingerprint"].items())),
        _table(("recipe", ""), ((k, str(v)) for k, v in dotted(recipe).items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _confidence(metadata: Mapping[str, Any]) -> str:
    if lacking := metadata.get("not_calibrated"):
        return f"It is softmax(logits), not calibrated: {lacking}."
    on, by = metadata.get("calibrated_on"), metadata.get("temperature", 1.0)
    return (
        f"The confidence is softmax(logits / {by:g}): the temperature is fitted on "
        f"{on or 'validation images'} (Guo et al. 2017). It changes the confidence, not the answer."
    )


def _unknown(day: Day, limit: float | str) -> str:
    rule = f"It always picks one of its classes, even for unrelated images: {limit}."
    if isinstance(limit, float):
        far = f"An image is called unknown where its distance is above {limit:.4f}"
        rule = f"{far}; docs/unknown.md of dayfold defines it."
    days, project = day.history.days, day.project
    of_days = [tables.unknown(project, on).with_columns(day=pl.lit(on)) for on in days]
    totals = pl.concat(of_days).filter(pl.col("unknown").is_not_null(), label="")
    rows = [
        (f"images of classes {of}", str(part["images"].sum()), str(part["unknown"].sum()))
        for new, of in ((1, "that were new to a day"), (0, "that were known by then"))
        if len(part := totals.filter(new=new))
    ]
    if not rows:
        return rule
    return (
        f"{rule} Each day's images were shown to the model of the day before, over "
        f"{plural(totals['day'].n_unique(), 'day')}:\n\n"
        + _table(("", "images", "called unknown"), rows)
    )


def _figures(line: DayLine) -> str:
    new = f"F1 of the classes new on this day ({', '.join(map(_plain, line.new))})"
    rows = evidence.text_rows(line.figures or {}, MEANINGS | {"new.f1": new})
    return _table(("figure", "value", "95%"), (cells for _, *cells in rows))


def _classes(line: DayLine, known: Evidence, history: History, live: Sequence[str]) -> str:
    figures, table = line.figures or {}, history.images.group_by("label", "split").len()
    counts = {(label, split): count for label, split, count in table.iter_rows()}
    rows = []
    for label in live:
        scores = figures["classes"].get(label, {})
        ends = figures["interval"]["classes"].get(label, {})
        row = [_plain(label), *(str(counts.get((label, split), 0)) for split in SPLITS)]
        for key in ("f1", "recall"):
            row += [figure(scores.get(key)), intervals.as_text(ends.get(key))]
        rows.append([*row, figure(scores.get("precision")), known.of_class(label)])
    header = ("class", *SPLITS, "F1", "95%", "recall", "95%", "precision", "")
    return _table(header, rows)


def _data(history: History, provenance: Mapping[str, Any]) -> str:
    drawn, images = provenance["draws"], provenance["images"]
    share = drawn["today"] / drawn["all"]
    withdrawn = f", {len(history.withdrawn)} withdrawn" if history.withdrawn else ""
    groups = history.images.filter(pl.col("group") != "")["group"].n_unique()
    units = f" of {plural(groups, 'patient')}, each of them in one split" if groups else ""
    return (
        f"{len(history.images)} images{units}{withdrawn}. Trained on {images['trained']} of them: "
        f"of the {drawn['all']} draws, {share:.0%} were of the day's own {images['today']} images "
        f"and {1 - share:.0%} of {images['replayed']} earlier ones. Every image is pinned by its "
        "sha256 in data/manifests; an image's split, once given, is kept for ever."
    )


def _limits(
    history: History, known: Evidence, classes: Sequence[str], reasons: Sequence[str]
) -> list[str]:
    none = [_plain(label) for label in classes if not known.classes.get(label)]
    some = replace(known, classes={_plain(label): n for label, n in known.classes.items() if n})
    found = [f"It did not pass the gate: {_plain(reason)}." for reason in reasons]
    if none:
        found.append(f"Not measured, because there are no test images: {', '.join(none)}.")
    found += some.sentences()
    if history.images.filter(pl.col("group") == "").height:
        found.append(
            "Images are split one by one, not by patient or study (`data.group`). If several show "
            "the same thing, the figures are too good."
        )
    found.append(
        "It was measured on images from the sources of its training images. The figures say "
        "nothing about other devices, sites or preparations."
    )
    return found


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(text: str) -> str:
    # Names come from folders, so Markdown and HTML in them are escaped.
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)
