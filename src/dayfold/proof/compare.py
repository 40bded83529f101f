"""What was made again against what was recorded: what differs first, by how much, and why."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dayfold import __version__
from dayfold.errors import ModelError, ToolError
from dayfold.project import remotes, vcs
from dayfold.project.console import first_few
from dayfold.project.files import md5
from dayfold.project.layout import Project
from dayfold.proof.record import PLANS, Sealed

LEVELS = """\
A  plans    manifest, weights, replay set, shares, draws: equal on every machine
B  bits     the model and all that follows from it: equal under the same fingerprint
C  GPU      as B, from run to run on the same GPU and stack
D  figures  under another fingerprint: within the recorded 95% intervals"""
# Of provenance.json; the rest are the fingerprint, times, and hashes that are compared as files.
DRAWS = ("parent", "classes", "new_classes", "images", "draws")


IDENTICAL, NOT_MADE = "identical", "not made"
WITHIN, OUTSIDE = "D within the recorded intervals", "D DIFFERS"


@dataclass(frozen=True)
class Rebuilt:
    """How a day came out, and what differs and why, or why it could not be made.

    `outcome` is IDENTICAL, NOT_MADE, which of the levels A and B are equal, or of a day that
    another version made (level D) WITHIN or OUTSIDE.
    """

    day: str
    outcome: str
    why: str = ""

    @property
    def is_as_expected(self) -> bool:
        """Whether it is identical or, made by another version, has figures within the intervals."""
        return self.outcome in (IDENTICAL, WITHIN)

    def __str__(self) -> str:
        """Return a line, or two where it differs."""
        between = ": " if self.outcome == NOT_MADE else "  "
        return f"{self.day}  {self.outcome}{between}{self.why}".rstrip()


def summary(results: Sequence[Rebuilt]) -> str:
    """Return the last line: how many days came out how."""
    counts = Counter(result.outcome for result in results)
    identical = f"{counts.pop(IDENTICAL, 0)} of {len(results)} days identical, to the bit"
    return "; ".join([identical, *(f"{count} {outcome}" for outcome, count in counts.items())])


def expected(days: Sequence[Sealed], threads: int | None) -> Iterator[str]:
    """Say which level to expect: the recorded fingerprints against this machine's."""
    from dayfold.learning import device, fingerprint

    @cache
    def here(asked: str, precision: str, threads: int, processes: int) -> dict[str, str | int]:
        machine = device.resolve(
            device=asked, precision=precision, threads=threads, processes=processes
        )
        return fingerprint.fingerprint(machine)

    found: dict[str, list[str]] = {}
    for sealed in days:
        recipe, pinned = sealed.params["train"], sealed.params["dayfold"]
        changed = differences(
            sealed.provenance["fingerprint"],
            here(
                recipe["device"],
                recipe["precision"],
                threads or recipe["threads"],
                recipe.get("processes", 1),  # earlier days had no such param
            ),
        )
        level = "A and D" if changed else "A and B (on a GPU: A and C)"
        if pinned != __version__:
            changed, level = [f"dayfold {pinned} → {__version__}", *changed], "D"
        state = f"differs: {', '.join(changed)};" if changed else "as recorded:"
        found.setdefault(f"{state} expect {level}", []).append(sealed.day)
    for text, same in found.items():
        which = f"{same[0]} to {same[-1]}, {len(same)} days" if len(same) > 1 else same[0]
        yield f"fingerprint of {which}, {text}"


def compare(sealed: Sealed, made: Project, objects: Path, *, inherited: str = "") -> Rebuilt:
    """Compare a day made again in `made` with its record; `objects` is DVC's cache.

    The hashes are those of both dvc.lock, and of what the day's commit has. `inherited` is the day
    since which the parent, made again too, is another one. Of a day of another version, figures
    are compared.
    """
    if sealed.params["dayfold"] != __version__:
        return _figures(sealed, made)
    mine, then = json.loads(made.provenance.read_bytes()), sealed.provenance
    lock, own = vcs.outputs(made.dvc_lock.read_bytes()), made.name(made.provenance)
    planned, model = sealed.outs(*PLANS), made.name(made.model)
    differing = [
        path
        for path, key in sealed.outs().items()
        # provenance.json has times in it: what may not differ is compared key by key.
        if path != own
        and lock.get(path) != (md5(sealed.files[path]) if path in sealed.files else key)
    ]
    plans = [path for path in differing if path in planned]
    plans += [f"{key} in {own}" for key in DRAWS if mine.get(key) != then.get(key)]
    bits = [path for path in differing if path not in planned]
    if not plans and not bits:
        return Rebuilt(sealed.day, IDENTICAL)
    levels = (f"{name} {'DIFFERS' if of else 'equal'}" for name, of in (("A", plans), ("B", bits)))
    said = first_few(plans) or [path for path in bits[:1] if path != model]
    said += [_tensors(sealed, made, objects)] if model in bits else []
    said += _accuracy(sealed, made)
    changed = differences(then["fingerprint"], mine["fingerprint"])
    why = "nothing known: dayfold's version and the fingerprint are the recorded ones"
    if plans:
        why = "plans are equal on every machine, so an image or a file of this day was changed: "
        why += "dayfold check --read-data"
    elif inherited:
        why = f"its parent is another one since {inherited}"
    elif changed:
        why = f"fingerprint: {', '.join(changed)}"
    return Rebuilt(sealed.day, "  ".join(levels), f"{'; '.join(said)}\n{'':12}why: {why}")


def _figures(sealed: Sealed, made: Project) -> Rebuilt:
    """Compare the figures of a day with the 95% intervals that were recorded (level D)."""
    # Versions before 0.2.0 had all figures in metrics.json.
    name = made.name(made.figures if made.name(made.figures) in sealed.files else made.metrics)
    then, now = json.loads(sealed.file(name)), json.loads(made.figures.read_bytes())
    outside = []
    for key, ends in then.get("interval", {}).items():
        if not isinstance(ends, dict) or not isinstance(ends.get("low"), float):
            continue  # of several figures, by class
        low, high, value = ends["low"], ends["high"], now.get(key)
        if value is None or not low <= value <= high:
            here = "none" if value is None else f"{value:.3f}"
            outside.append(f"{key} {here}, recorded {then[key]:.3f} ({low:.3f} to {high:.3f})")
    said = [*_accuracy(sealed, made), *first_few(outside)]
    return Rebuilt(sealed.day, OUTSIDE if outside else WITHIN, f"\n{'':12}".join(said))


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say in which facts two fingerprints differ: `threads 2 → 1`. What only one has is left out.

    A fact that an older version did not record says nothing of what has changed. Of a list of CPU
    features only those are named that one of both lacks: `cpu_features -fma3 +avx512_bf16`.
    """
    return [
        f"{name} {_change(name, str(value), str(here[name]))}"
        for name, value in recorded.items()
        if name in here and here[name] != value
    ]


def _change(name: str, before: str, after: str) -> str:
    if name.endswith("_features"):
        one, two = before.split(), after.split()
        lost = [f"-{feature}" for feature in one if feature not in two]
        return " ".join(lost + [f"+{feature}" for feature in two if feature not in one])
    short = (f"{text[:12]}…" if len(text) == 64 else text for text in (before, after))
    return " → ".join(short)


def _tensors(sealed: Sealed, made: Project, objects: Path) -> str:
    """Say how many tensors of the model differ from the recorded one's, and which the most."""
    from dayfold.learning import network

    key = sealed.outs()[made.name(made.model)]
    try:
        kept = remotes.bring(sealed.project.root, key, objects=objects)
        old, new = network.load(kept).state, network.load(made.model).state
    except ToolError:
        return "model (the recorded one is not here: dayfold check)"
    except ModelError as error:
        return f"model ({error.what})"
    gaps = {
        name: float((one.double() - new[name].double()).abs().max())
        for name, one in old.items()
        if name in new and one.shape == new[name].shape and not one.equal(new[name])
    }
    if not gaps:
        return "model: other tensors, shapes or metadata"
    worst = max(gaps, key=gaps.__getitem__)
    return f"model: {len(gaps)} of {len(old)} tensors, the most in {worst}, by {gaps[worst]:.2g}"


def _accuracy(sealed: Sealed, made: Project) -> list[str]:
    """Say how far average_accuracy moved, where both have it."""
    name = "average_accuracy"
    then = json.loads(sealed.file(made.name(made.metrics))).get(name)
    now = json.loads(made.metrics.read_bytes()).get(name)
    if then is None or now is None:
        return []
    return [f"{name} {then:.3f} → {now:.3f}" if then != now else f"{name} equal"]
