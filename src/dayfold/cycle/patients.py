"""What `add` says of patients before the split."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dayfold.ledger import splits
from dayfold.ledger.intake.delivery import Delivered, Remark
from dayfold.project.files import escaped
from dayfold.project.layout import Project

SHOWN = 3  # paths with what the expression finds in them
NO_MATCH = "no match"
WORDS = "patient|subject|subj|study|case|pat|pt|p"
# What stands before the id, and its first part; P013_2.png, case-12/2.png, scan_pat7.png.
_ID = re.compile(rf"([/_. -])((?:{WORDS})[_-]?)\d+(?![A-Za-z0-9])", re.IGNORECASE)


def found(
    project: Project,
    targets: Sequence[tuple[Delivered, Path]],
    expression: str,
    *,
    is_by_csv: bool,
) -> Iterator[str]:
    """Yield a line on what the expression finds in the first paths; without one, on what could.

    Where a CSV or a DICOM file told the group, neither is needed.
    """
    paths = [(item, project.name(path)) for item, path in targets if not item.told]
    if expression:
        groups = [(item.place, splits.group_of(path, expression, item.ids)) for item, path in paths]
        yield from _shown(groups)
        return
    unknown = [(item, path) for item, path in paths if not item.ids]
    places = [(["/" + Path(path).name for _, path in unknown], "dayfold add … --group '{}'")]
    if is_by_csv:  # the folders in its paths are in no path of the project
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


def again(
    known: Sequence[Remark], lying: Mapping[str, tuple[str, str]], expression: str
) -> Iterator[str]:
    """Yield a line on what the expression finds in the paths of known images of the open day.

    `lying` maps an image to its class and path there.
    """
    here = [(one.place, lying[one.image][1]) for one in known if one.image in lying]
    found = [(place, splits.in_path(path, expression) or NO_MATCH) for place, path in here]
    # Those without any first: snapshot refuses them, unless DICOM ids say who it is.
    yield from _shown(sorted(found, key=lambda one: one[1] != NO_MATCH) if expression else [])


def _shown(groups: Sequence[tuple[str, str]]) -> Iterator[str]:
    if groups:
        first = "; ".join(f"{place} → {group}" for place, group in groups[:SHOWN])
        yield escaped(f"patients by data.group: {first}")


def changed(before: str, now: str, sealed: Sequence[str]) -> Iterator[str]:
    """Yield what another `data.group` means for a project, once it is in params.yaml."""
    yield escaped(f"params.yaml: data.group is '{now}'" + f", it was '{before}'" * bool(before))
    if sealed:
        yield (
            "images of sealed days keep their groups and splits; new ones join a patient whom this "
            "or an earlier expression finds (docs/intake.md, Groups)"
        )


def _likely(names: Sequence[str]) -> tuple[str, Counter[str]] | None:
    """The expression that finds ids in most names, some of them again, and how often each."""
    heads = Counter(match.groups() for name in names if (match := _ID.search(name)))
    if not heads:
        return None
    (before, head), _ = heads.most_common(1)[0]
    expression = rf"{re.escape(before) if before == '.' else before}({head}\d+)"
    ids = Counter(match[1] for name in names if (match := re.search(expression, name)))
    is_likely = 2 * ids.total() >= len(names) and len(ids) < ids.total()
    return (expression, ids) if is_likely else None
