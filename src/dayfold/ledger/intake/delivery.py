"""What became of each file of a delivery."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from dayfold.ledger import splits, tables
from dayfold.ledger.tables import Told
from dayfold.project.console import MOST_LINES, first_few, plural
from dayfold.project.files import escaped
from dayfold.project.layout import Project

MANY = 50_000  # files of a day, from which on a person is asked
NO_LABEL = "no_label"
FEW = 5  # new classes with a single file each, from which on they are suspicious
SHOWN = 3  # paths that are shown with their patients
NO_MATCH = "no match"
WORDS = "patient|subject|subj|study|case|pat|pt|p"

_COMPUTED = re.compile(r"=.+|#[A-Z]+[!?]")  # =A1, #REF!, #NAME?
_LIKE_A_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")
# The separator before a patient's id, and its prefix: P013_2.png, case-12/2.png, scan_pat7.png.
_ID = re.compile(rf"([/_. -])((?:{WORDS})[_-]?)\d+(?![A-Za-z0-9])", re.IGNORECASE)


class Found(NamedTuple):
    """A file of a delivery: its path, its name in messages, its class, the group in a CSV.

    `real` is the path of its bytes if it is DVC's link to the cache. After the check `image` is its
    sha256, `look` its difference hash (looks.py), `ids` the group by a DICOM file's ids.
    """

    path: Path
    place: str
    label: str
    group: str = ""
    real: Path | None = None
    image: str = ""
    look: str = ""
    ids: str = ""


class Remark(NamedTuple):
    """A remark on a file, and the file's sha256 if it could be read.

    For a known image that is given with another `label`, `known` is the path that it has.
    """

    place: str
    said: str
    image: str = ""
    known: str = ""
    label: str = ""

    def __str__(self) -> str:
        return escaped(f"{self.place} {self.said}")


@dataclass
class Delivery:
    """The outcome for each file: images to add, known ones, refused ones, warnings, ignored ones.

    `changed` are known images given with another label; with `relabels` they become corrections.
    `groups` maps images to new groups that a CSV names. `listed` maps a kind of remarks to the file
    that has all of them. `opened` is the day's parent if the day was opened for this delivery.
    `said` are lines on the day, patients and columns. `is_regrouped` says whether `data.group` was
    changed. With `is_dry` nothing was written. `guess` are the columns of a label file that a
    person must agree to, and the option that would name them.
    """

    images: list[Found] = field(default_factory=list)
    known: list[Remark] = field(default_factory=list)
    refused: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)
    warned: list[Remark] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    is_regrouped: bool = False
    is_dry: bool = False
    relabels: bool = False
    ignored: int = 0
    opened: str = ""
    guess: tuple[str, str] | None = None

    def refuse(self, place: str, reason: str, image: str = "") -> None:
        self.refused.append(Remark(place, reason, image))

    def warn(self, place: str, what: str) -> None:
        self.warned.append(Remark(place, what))

    def table(self, day: str) -> Table:
        """Return the numbers of added, known, refused, warned and ignored files, with examples."""
        result = Table(box=None, pad_edge=False)
        result.add_column(day)
        result.add_column("files", justify="right")
        result.add_column("", overflow="fold")
        would = "would be " * self.is_dry
        classes = sorted(tally(self.images).items())
        counts = ", ".join(f"{escaped(label)} {count}" for label, count in classes)
        result.add_row(f"{would}added", str(len(self.images)), Text(counts))
        if self.groups:
            result.add_row(f"{would}grouped", str(len(self.groups)), "patients or studies recorded")
        other = f"{would}relabelled" if self.relabels else "another label"
        for name, kind in (
            ("already known", "known"),
            *[(other, "changed")] * bool(self.changed),
            (f"{would}refused", "refused"),
            ("warned", "warned"),
        ):
            result.add_row(name, str(len(getattr(self, kind))), Text("\n".join(self._first(kind))))
        if self.ignored:
            result.add_row("ignored", str(self.ignored), "hidden and system files")
        return result

    def unusual(self) -> Iterator[str]:
        """Yield lines on the first refused and warned files, and the file that has all of them."""
        for word, kind in (("refused",) * 2, ("another label", "changed"), ("warned",) * 2):
            yield from (f"  {word}: {line}" for line in self._first(kind))

    def _first(self, kind: str) -> list[str]:
        return first_few([str(remark) for remark in getattr(self, kind)], self.listed[kind])

    def next_step(self) -> str:
        """Return what to do next."""
        if self.is_dry:
            return "nothing was changed; without --dry-run it is done"
        corrected = self.changed if self.relabels else []
        new = (self.images, self.groups, self.opened, corrected, self.is_regrouped)
        step = "next: dvc repro" if any(new) else "nothing new"
        if self.changed and not self.relabels:
            step += "; to take the other labels as corrections: the same command with --relabel"
        return step


def safe_cell(place: str) -> str:
    """Return a path that no spreadsheet takes for a formula, and that leads to the same file."""
    return f"./{place}" if place.startswith(("=", "+", "-", "@")) else place


def write_down(project: Project, kinds: Mapping[str, Sequence[Remark]]) -> str:
    """Write all remarks if a kind has more of them than are printed; return the file's name."""
    if any(len(remarks) > MOST_LINES for remarks in kinds.values()):
        rows = [
            (kind, safe_cell(one.place), one.image, escaped(one.said))
            for kind, remarks in kinds.items()
            for one in remarks
        ]
        tables.write(project.remarks, Told, rows)
    return project.name(project.remarks)


def tally(found: Iterable[Found]) -> dict[str, int]:
    return dict(Counter(one.label for one in found))


def suspicions(counts: Mapping[str, int], known: set[str]) -> list[str]:
    """Say what is suspicious about a delivery, by its number of files of each class."""
    found = []
    new = sorted(set(counts) - known)
    single = [label for label in new if counts[label] == 1]
    dated = [label for label in new if _LIKE_A_DAY.fullmatch(label)]
    if len(single) >= FEW and 2 * len(single) > len(counts):
        found.append(
            f"{len(single)} new classes hold one file each ({', '.join(single[:3])}, …): is this "
            "the wrong folder, one level too high or low?"
        )
    if dated:
        found.append(
            f"new classes are named like days ({', '.join(dated[:3])}): is this an archive of "
            "days, for dayfold run?"
        )
    same = dict[str, set[str]]()
    for label in {*counts, *known}:
        same.setdefault("".join(label.split()), set()).add(label)
    if spaced := [names for names in same.values() if len(names) > 1 and names & {*new}]:
        shown = "; ".join(" and ".join(map(repr, sorted(names))) for names in spaced[:3])
        found.append(f"classes differ by spaces only: {shown}")
    if computed := list(filter(_COMPUTED.fullmatch, new)):
        found.append(f"new classes are formulas or errors of a spreadsheet: {computed[:3]}")
    if NO_LABEL in new:
        found.append(
            f"{NO_LABEL!r} is no class, but where CVAT's ImageNet export puts the untagged"
        )
    if sum(counts.values()) >= MANY:
        found.append(f"{sum(counts.values())} files are a great many for one day")
    return found


# Patients, before their images are split: what `data.group` finds in paths, or could find.


def patients(
    paths: Sequence[tuple[Found, str]], expression: str, *, is_by_csv: bool
) -> Iterator[str]:
    """Yield a line on the patients that the expression finds in the first paths.

    Without an expression it suggests one. Files whose group a CSV or DICOM names need neither.
    """
    paths = [(item, path) for item, path in paths if not item.group]
    if expression:
        yield from _examples(
            [(item.place, splits.group_of(path, expression, item.ids)) for item, path in paths]
        )
        return
    unknown = [(item, path) for item, path in paths if not item.ids]
    places = [(["/" + Path(path).name for _, path in unknown], "dayfold add … --group '{}'")]
    if is_by_csv:  # the folders of its paths are not in the project's paths
        folders = [f"/{Path(item.place).parent}/" for item, _ in unknown]
        places.append((folders, "give them as the column group of the CSV"))
    for names, hint in places:
        if likely := _likely(names):
            regex, ids = likely
            yield escaped(
                f"{ids.total()} of {len(names)} names hold what looks like a patient's id "
                f"({min(ids)}), and data.group is empty: images of one patient may be trained on "
                f"and tested on. Before dvc repro: {hint.format(regex)}"
            )
            return


def alike(groups: Iterable[str], known: Iterable[str]) -> list[str]:
    """Say which of these groups differ from another by case, signs or leading zeros only."""
    new, same = set(groups), dict[tuple[str, ...], set[str]]()
    for group in {*new, *known}:
        parts = re.findall(r"\d+|[^\W\d_]+", group.casefold().removesuffix(".0"))
        same.setdefault(tuple(part.lstrip("0") for part in parts), set()).add(group)
    found = [sorted(names) for names in same.values() if len(names) > 1 and names & new]
    return [" and ".join(map(repr, names)) for names in sorted(found)]


def patients_again(
    known: Sequence[Remark], lying: Mapping[str, tuple[str, str]], expression: str
) -> Iterator[str]:
    """Yield a line on the patients that a new expression finds among images of the open day.

    `lying` maps an image to its class and path there.
    """
    here = [(one.place, lying[one.image][1]) for one in known if one.image in lying]
    found = [(place, splits.in_path(path, expression) or NO_MATCH) for place, path in here]
    # Files without a match come first: snapshot refuses them, unless DICOM ids name the patient.
    yield from _examples(sorted(found, key=lambda one: one[1] != NO_MATCH) if expression else [])


def _examples(groups: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a line with a path of each of the first patients, and how many patients there are."""
    if groups:
        first = {group: place for place, group in reversed(groups)}
        found = [(place, group) for place, group in groups if first[group] == place]
        shown = "; ".join(f"{place} → {group}" for place, group in found[:SHOWN])
        patients = plural(len(first.keys() - {NO_MATCH}), "patient")
        yield escaped(f"{patients} by data.group: {shown}")


def regrouped(before: str, now: str, sealed: Sequence[str]) -> Iterator[str]:
    yield escaped(f"params.yaml: data.group is '{now}'" + f", it was '{before}'" * bool(before))
    if sealed:
        yield (
            "images of sealed days keep their groups and splits; new ones join a patient whom this "
            "or an earlier expression finds (docs/intake.md, Groups)"
        )


def _likely(names: Sequence[str]) -> tuple[str, Counter[str]] | None:
    """Return an expression that finds ids in most names, and how often it finds each id.

    None where there is none, or where no id comes twice.
    """
    heads = Counter(match.groups() for name in names if (match := _ID.search(name)))
    if not heads:
        return None
    (before, head), _ = heads.most_common(1)[0]
    expression = rf"{re.escape(before) if before == '.' else before}({head}\d+)"
    ids = Counter(match[1] for name in names if (match := re.search(expression, name)))
    is_likely = 2 * ids.total() >= len(names) and len(ids) < ids.total()
    return (expression, ids) if is_likely else None
