"""data/corrections/<day>.csv: relabelled, withdrawn and erased images."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.names import clashes, composed, name_problem
from dayfold.ledger.tables import ImageGroup
from dayfold.project import vcs
from dayfold.project.files import parse_csv
from dayfold.project.layout import ORIGIN, Project

ERASE = "erase"  # withdrawn, and its bytes are removed


class Correction(NamedTuple):
    """A correction of an image of an earlier day.

    `relabel` gives it the class `label`. `withdraw` removes it from this data version and all later
    ones. `erase` withdraws it, if no earlier day has, and records that its bytes are removed.
    """

    action: str
    image: str
    label: str
    reason: str


def write_empty(project: Project, day: str) -> None:
    for path, kind in ((project.corrections(day), Correction), (project.groups(day), ImageGroup)):
        if not path.exists():
            tables.write(path, kind, [])


def write(project: Project, day: str, lines: Iterable[Correction]) -> None:
    tables.write(project.corrections(day), Correction, sorted(lines))


def of_day(project: Project, day: str) -> dict[str, Correction]:
    """Return a day's corrections by image, unchecked; empty if there is no file."""
    if not project.corrections(day).exists():
        return {}
    table = tables.read(project.corrections(day), Correction)
    return {row[1]: Correction(*row) for row in table.iter_rows()}


def withdrawals(project: Project, *actions: str) -> dict[str, tuple[str, Correction]]:
    """Return image → day and correction, for all images withdrawn or erased on any day.

    Sealed days are read at their tags, other days from files. `actions` are "withdraw" and "erase",
    by default both. A file that cannot be read is skipped.
    """
    # A backtest's folder has no git.
    sealed = vcs.sealed_days(project.root) if vcs.git_succeeds(project.root, "rev-parse") else []
    tagged = vcs.at_tags(project.root, sealed, lambda day: [project.name(project.corrections(day))])
    files = {day: data for day, of_day in tagged.items() for data in of_day.values()}
    for path in project.corrections("").parent.glob("*.csv"):
        if path.stem not in sealed:
            files[path.stem] = path.read_bytes()
    found = {}
    for day, data in sorted(files.items()):
        if b"\n" not in data.strip():
            continue  # only the header, as on most days
        try:
            table = parse_csv(data, tables.schema(Correction), day)
        except LedgerError:
            continue
        for correction in map(Correction._make, table.iter_rows()):
            if correction.action in (actions or ("withdraw", ERASE)):
                found[correction.image] = day, correction
    return found


def manifests_without_withdrawn(project: Project, last: str) -> tuple[dict[str, bytes], int]:
    """Return the manifests up to a day without all images withdrawn so far, and their number.

    The origin's manifest is among them. Where nothing was withdrawn, there are no manifests and 0.
    """
    history = manifest.history(project, last)
    withdrawn = withdrawals(project).keys() & {*history.images["image"], *history.withdrawn}
    if not withdrawn:
        return {}, 0
    chain = [(day, project.manifest(day).read_bytes()) for day in history.days]
    origin = {ORIGIN: project.manifest(ORIGIN).read_bytes()}
    return origin | manifest.without(chain, withdrawn), len(withdrawn)


def applied(known: History, noted: Mapping[str, Correction]) -> History:
    """Return a history with the open day's corrections, which no manifest has yet."""
    if not noted:
        return known
    labels = {image: one.label for image, one in noted.items() if one.label}
    withdrawn = noted.keys() - labels.keys()
    label = pl.col("image").replace_strict(labels, default=pl.col("label"), return_dtype=pl.String)
    images = known.images.filter(~pl.col("image").is_in(list(withdrawn))).with_columns(label=label)
    corrected = known.images.filter(pl.col("image").is_in(list(noted))).with_columns(before="label")
    return replace(
        known,
        images=images,
        corrections=pl.concat([known.corrections, corrected], how="diagonal"),
        withdrawn=known.withdrawn | withdrawn,
    )


def renamed(
    known: History, noted: Mapping[str, Correction], today: Collection[str]
) -> dict[str, str]:
    """Return `manifest.renames` by the open day's corrections; `today` are its images' classes."""
    into: dict[str, set[str]] = {}
    corrected = known.images.filter(pl.col("image").is_in(list(noted)))
    for image, label in corrected.select("image", "label").iter_rows():
        if noted[image].label:
            into.setdefault(label, set()).add(noted[image].label)
    live = {*applied(known, noted).images["label"].unique(), *today}
    return manifest.renames(into, live)


def label_problem(label: str) -> str:
    if wrong := name_problem(label, "class"):
        return wrong
    if label != composed(label):
        return "is not in composed Unicode (NFC)"
    return "has a backslash in it" if "\\" in label else ""


def read(project: Project, day: str, known: History) -> list[Row]:
    """Return the day's corrections as rows of its manifest.

    `erase` becomes a `withdraw` row, or no row for an image that was withdrawn earlier. Raises
    LedgerError that lists all lines that do not fit.
    """
    name = project.name(project.corrections(day))
    table = tables.read(project.corrections(day), Correction)
    given = table["image"].implode()
    images = {
        row["image"]: row
        for part in (known.corrections.filter(action="withdraw"), known.images)
        for row in part.filter(pl.col("image").is_in(given)).iter_rows(named=True)
    }
    rows, problems, seen = [], [], set()
    for number, line in enumerate(table.iter_rows(named=True), start=2):
        action, image, label = line["action"], line["image"], line["label"].strip()
        at = images.get(image)
        if action not in ("relabel", "withdraw", ERASE):
            problems.append(f"line {number}: action {action!r} is not relabel, withdraw or erase")
        elif at is None:
            problems.append(f"line {number}: no image {image[:12]!r}… on an earlier day")
        elif image in known.withdrawn and action != ERASE:
            problems.append(f"line {number}: {at['path']} was withdrawn on an earlier day")
        elif image in seen:
            problems.append(f"line {number}: a second correction of {at['path']}")
        elif action == "relabel" and not label:
            problems.append(f"line {number}: relabel of {at['path']} without a label")
        elif action == "relabel" and (wrong := label_problem(label)):
            problems.append(f"line {number}: the class {label!r} {wrong}")
        else:
            seen.add(image)
            kept = (at["path"], label if action == "relabel" else "", at["group"], at["split"])
            if image not in known.withdrawn:
                rows.append(Row("withdraw" if action == ERASE else action, image, *kept))
    changed = [row.image for row in rows]
    unchanged = known.images.filter(~pl.col("image").is_in(changed))["label"].unique()
    problems += clashes({row.label for row in rows if row.label} | set(unchanged))
    if problems:
        what, hint = f"{name} has lines that do not fit:", f"edit {name}, or git checkout -- {name}"
        raise LedgerError(what, problems=problems, hint=hint)
    return rows
