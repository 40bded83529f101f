"""The day's folder and corrections → its manifest."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from dayfold.errors import IntakeError
from dayfold.figures import evidence
from dayfold.ledger import corrections, grouping, looks, manifest, splits, tables
from dayfold.ledger.grouping import NewImage, Units
from dayfold.ledger.image_cache import square_cache
from dayfold.ledger.intake import delivery as deliveries
from dayfold.ledger.intake.delivery import Delivery, tally, write_down
from dayfold.ledger.intake.finding import walk_day
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.names import composed, folded
from dayfold.ledger.tables import Look, NearDuplicate
from dayfold.project.console import MOST_LINES, arrows, first_few, plural
from dayfold.project.files import escaped
from dayfold.project.layout import Project
from dayfold.project.params import Params


def rows_of(
    images: Sequence[NewImage], *, units: Units, earlier: History, fractions: dict[str, float]
) -> list[Row]:
    """Return the `add` rows of today's images, each with its split.

    A pure function of the set of images, their units and the history. A unit that the history has
    keeps its split.
    """
    groups: dict[str, Counter[str]] = {}
    alone: dict[str, str] = {}
    returning = []
    for image, _, label, group in images:
        unit = units.of[image]
        if unit in units.settled:
            returning.append((label, units.settled[unit], group))
        elif unit == image:
            alone[image] = label
        else:
            groups.setdefault(unit, Counter())[label] += 1
    before = _by_class(earlier, returning)
    given = splits.assign(groups, alone, before=before, fractions=fractions)
    split_of = {**given, **units.settled}
    return [
        Row("add", image, path, label, group, split_of[units.of[image]])
        for image, path, label, group in images
    ]


def _by_class(
    earlier: History, returning: Sequence[tuple[str, str, str]]
) -> dict[str, dict[str, tuple[int, int]]]:
    # Class → split → images and groups; `returning` (label, split, group) are images of today.
    known = earlier.images.select("label", "split", "group")
    table = pl.concat([known, pl.DataFrame(returning, known.schema, orient="row")])
    before: dict[str, dict[str, tuple[int, int]]] = {}
    for rows in (table, table.with_columns(label=pl.lit(splits.WHOLE))):
        counts = rows.group_by("label", "split").agg(pl.len(), evidence.UNITS)
        for label, split, images, groups in counts.iter_rows():
            before.setdefault(label, {})[split] = (images, groups)
    return before


def run(project: Project, params: Params) -> list[str]:
    """Read data/images/<day> and the day's corrections; write data/manifests/<day>.csv.

    Writes the day's looks and near duplicates too. Returns the summary and the warnings. Raises
    IntakeError that lists every file that cannot be taken.
    """
    day, expression = params.day, params.data.group
    earlier = manifest.history(project, params.parent, cache=True)
    noted = corrections.of_day(project, day)
    delivery = _inspected(project, params, earlier, noted)
    arrived = list(_new_images(project, day, delivery, expression))
    kinds = {"known": delivery.known, "refused": delivery.refused, "warned": delivery.warned}
    listed, folder = write_down(project, kinds), project.name(project.images(day))
    if delivery.refused:
        raise IntakeError(
            f"{plural(len(delivery.refused), 'problem')} in {folder}; no manifest was written:",
            problems=first_few([str(problem) for problem in delivery.refused], listed),
            hint="fix or remove these files, then dvc repro",
        )
    if not arrived and not noted:
        raise IntakeError(f"There is no new image in {folder}.", hint="dayfold add FOLDER")
    corrected = corrections.read(project, day, earlier)
    units = grouping.units(arrived, earlier=earlier, expression=expression)
    fractions = params.data.split.fractions()
    added = rows_of(arrived, units=units, earlier=earlier, fractions=fractions)
    look_of = {item.image: item.look for item in delivery.images}
    tables.write(project.looks(day), Look, sorted(look_of.items()))
    duplicates = looks.near_duplicates(
        added, look_of, history=earlier, earlier=looks.read(project, earlier.days)
    )
    tables.write(project.plot("near_duplicates"), NearDuplicate, duplicates)
    manifest.write(
        project.manifest(day),
        parent_day=params.parent,
        parent_sha256=earlier.sha256,
        rows=[*added, *corrected],
        expression=expression,
    )
    renamed = corrections.renamed(earlier, noted, {row.label for row in added})
    summary = [*_summary(added, corrected, earlier, renamed)]
    columns = ["image", "label", "group", "split"]
    stay = corrections.applied(earlier, noted).images.select(columns)
    today = pl.DataFrame(added, tables.schema(manifest.Row), orient="row").select(columns)
    warnings = [*_too_few(pl.concat([stay, today]), fractions), *_regrouped(units)]
    similar = [*_near_duplicates(duplicates)]
    print(*summary, *_remarks(delivery, listed), *warnings, *similar, sep="\n")
    return ["; ".join([*summary, *similar[-1:]]), *warnings]


def _inspected(
    project: Project, params: Params, earlier: History, noted: Mapping[str, corrections.Correction]
) -> Delivery:
    delivery = Delivery()
    found = walk_day(project, params.day, delivery)
    size = params.train.image_size_px
    deliveries.inspect(
        found,
        delivery,
        corrections.applied(earlier, noted),
        squares=(str(square_cache(project.squares, size).folder), size),
    )
    for remark in delivery.changed:
        hint = shlex.join(["dayfold", "relabel", remark.known, "--to", remark.label])
        delivery.refuse(remark.place, f"{remark.text}; to correct that: {hint}", remark.image)
    for odd in deliveries.suspicions(tally(found), set(earlier.images["label"].unique())):
        delivery.warn(project.name(project.images(params.day)), f"is odd: {odd}")
    return delivery


def _new_images(
    project: Project, day: str, delivery: Delivery, expression: str
) -> Iterator[NewImage]:
    groups, names = grouping.read_groups(project, day), dict[tuple[str, str], str]()
    for item in delivery.images:
        path = project.name(item.path)
        first = names.setdefault(folded(item.path), path)  # the first file of this name
        group = groups.get(item.image) or grouping.in_path(path, expression) or item.ids
        if path != composed(path):
            reason = "has letters that are not in composed Unicode (NFC); dayfold add composes them"
            delivery.refuse(path, reason)
        elif path != first:
            reason = f"has the name of {first} where case is ignored; give one of them another name"
            delivery.refuse(path, reason)
        elif expression and not group:
            delivery.refuse(path, f"has {grouping.NO_GROUP}", item.image)
        else:
            yield NewImage(item.image, path, item.label, group)


# `dvc repro` prints all of these lines, `dayfold run` only the summary and the warnings.


def _summary(
    added: list[Row], corrected: list[Row], earlier: History, renamed: Mapping[str, str]
) -> Iterator[str]:
    parts = []
    for split in manifest.SPLITS:
        groups = [row.group for row in added if row.split == split]
        distinct = len({*groups} - {""})
        inside = f" of {plural(distinct, 'patient')}" if any(row.group for row in added) else ""
        parts.append(f"{len(groups)} {split}{inside}")
    classes = {row.label for row in added}
    new = sorted(classes - {*earlier.images["label"].unique(), *renamed.values()})
    line = f"{plural(len(added), 'image')} ({', '.join(parts)}) in {plural(len(classes), 'class')}"
    if new:
        line += f", new: {', '.join(new)}"
    if renamed:
        line += f", renamed or merged: {arrows(renamed)}"
    if earlier.days:
        line += f"; {len(earlier.images)} on {plural(len(earlier.days), 'earlier day')}"
    yield line
    if corrected:
        yield f"{plural(len(corrected), 'correction')} of earlier days"


def _too_few(images: pl.DataFrame, fractions: Mapping[str, float]) -> Iterator[str]:
    table = images.group_by("label", "split").agg(evidence.UNITS)
    counts = {(label, split): units for label, split, units in table.iter_rows()}
    labels, thing = sorted(images["label"].unique()), evidence.unit_of(images)
    none = {
        split: [label for label in labels if part > 0 and not counts.get((label, split))]
        for split, part in fractions.items()
    }
    tested = {label: counts.get((label, "test"), 0) for label in labels}
    few = [f"{label} ({n})" for label, n in tested.items() if n and evidence.is_too_few(n)]
    more, later = f"; add more such {thing}s", ", or judge on a later day"
    sentences = {
        "no training image of {}: the model cannot learn it before one comes, and its test images "
        "count as wrong": none["train"],
        f"no test {thing} of {{}}: not judged{more}{later}": none["test"],
        f"no validation {thing} of {{}}: confidence is not checked{more}": none["validation"],
        f"too few test {thing}s to judge {{}}: {evidence.ENOUGH} are needed{more}{later}": few,
    }
    for sentence, named in sentences.items():
        if named:
            yield f"warning: {sentence.format(escaped(', '.join(first_few(named))))}"


def _remarks(delivery: Delivery, listed: str) -> Iterator[str]:
    for kind, remarks in (("known", delivery.known), ("warning", delivery.warned)):
        yield from (f"{kind}: {line}" for line in first_few([*map(str, remarks)], listed))
    if delivery.ignored:
        yield f"ignored: {plural(delivery.ignored, 'hidden file')}"


def _regrouped(units: Units) -> Iterator[str]:
    affected = units.in_several_splits()
    for unit in affected[:MOST_LINES]:
        counts = units.live[unit]
        parts = ", ".join(f"{counts[split]} {split}" for split in manifest.SPLITS if counts[split])
        new = list(units.of.values()).count(unit)
        yield escaped(
            f"warning: {unit!r} joins images that another data.group had split ({parts}); its "
            f"{new} of today go to {units.settled[unit]}"
        )
    if affected:
        yield (
            f"{len(affected)} such groups: figures on their held-out images are too good; "
            "dayfold withdraw removes these images (docs/intake.md, Groups)"
        )


def _near_duplicates(duplicates: list[NearDuplicate]) -> Iterator[str]:
    for pair in duplicates[:MOST_LINES]:
        yield escaped(
            f"warning: {pair.path} ({pair.label}, {pair.split}) looks like {pair.other_path} "
            f"({pair.other_label}, {pair.other_split})"
        )
    if duplicates:
        count = plural(len(duplicates), "near duplicate")
        yield f"{count} across splits or classes (data/plots/near_duplicates.csv)"
