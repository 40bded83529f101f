"""What was made again against what was recorded: what differs first, by how much, and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dayfold import __version__
from dayfold.errors import ModelError
from dayfold.project import cache, vcs
from dayfold.project.console import first_few
from dayfold.project.files import md5
from dayfold.project.layout import Project
from dayfold.proof.record import PLANS, Sealed

LEVELS = """\
A  plans    manifest, weights, replay set, shares, draws: equal on every machine
B  bits     the model and all that follows from it: equal under the same fingerprint
C  GPU      as B, from run to run on the same GPU and stack
D  figures  under another fingerprint: within the 95% intervals of metrics.json"""
# Of provenance.json; the rest are the fingerprint, times, and hashes that are compared as files.
DRAWS = ("parent", "classes", "new_classes", "images", "draws")


@dataclass(frozen=True)
class Rebuilt:
    """How a day came out: `plans` (level A) and `bits` (level B) equal or not.

    `first` says what differs first, `why` what may explain it; `problem` why it could not be made.
    `outside` are the figures that left their recorded intervals (level D); it is None where the day
    was made by its own version, so that levels A and B apply.
    """

    day: str
    plans: bool = False
    bits: bool = False
    first: str = ""
    why: str = ""
    problem: str = ""
    outside: tuple[str, ...] | None = None

    @property
    def is_identical(self) -> bool:
        """Whether all of it is, to the bit."""
        return self.plans and self.bits and not self.problem

    @property
    def is_as_expected(self) -> bool:
        """Whether it is identical or, made by another version, has figures within the intervals."""
        return self.is_identical or (self.outside == () and not self.problem)


def expected(days: Sequence[Sealed], threads: int | None) -> Iterator[str]:
    """Say which level to expect: the recorded fingerprints against this machine's."""
    from dayfold.learning import device, fingerprint

    here: dict[tuple[str, str, int, int], dict[str, str | int]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for sealed in days:
        recipe = sealed.params["train"]
        asked = (
            recipe["device"],
            recipe["precision"],
            threads or recipe["threads"],
            recipe.get("processes", 1),  # earlier days had no such param
        )
        if asked not in here:
            machine = device.resolve(
                device=asked[0], precision=asked[1], threads=asked[2], processes=asked[3]
            )
            here[asked] = fingerprint.fingerprint(machine)
        changed = differences(sealed.provenance["fingerprint"], here[asked])
        level = "A and D" if changed else "A and B (on a GPU: A and C)"
        if (pinned := sealed.params["dayfold"]) != __version__:
            changed, level = [f"dayfold {pinned} → {__version__}", *changed], "D"
        found.setdefault((", ".join(changed), level), []).append(sealed.day)
    for (change, level), same in found.items():
        which = f"{same[0]} to {same[-1]}, {len(same)} days" if len(same) > 1 else same[0]
        state = f"differs: {change};" if change else "as recorded:"
        yield f"fingerprint of {which}, {state} expect {level}"


def compare(sealed: Sealed, made: Project, objects: Path, *, inherited: str = "") -> Rebuilt:
    """Compare a day made again in `made` with its record; `objects` is DVC's cache.

    The hashes are those of both dvc.lock, and of what the day's commit has. `inherited` is the day
    since which the parent, made again too, is another one.
    """
    mine, then = json.loads(made.provenance.read_bytes()), sealed.provenance
    lock, own = vcs.outputs(made.dvc_lock.read_bytes()), made.name(made.provenance)
    differing = [
        pin.path
        for pin in sealed.outs()
        # provenance.json has times in it: what may not differ is compared key by key.
        if pin.path != own and lock.get(pin.path) != _recorded(sealed, pin)
    ]
    planned = {pin.path for pin in sealed.outs(*PLANS)}
    plans = not planned & set(differing) and all(mine.get(key) == then.get(key) for key in DRAWS)
    bits = not set(differing) - planned
    if plans and bits:
        return Rebuilt(sealed.day, plans, bits)
    shown = differing[:1]
    model = made.name(made.model)
    if model in differing[1:]:
        shown.append(model)
    first = [_difference(sealed, made, objects, path) for path in shown] or ["draws"]
    changed = differences(then["fingerprint"], mine["fingerprint"])
    return Rebuilt(
        sealed.day,
        plans,
        bits,
        first="; ".join([*first, *_accuracy(sealed, made)]),
        why=_why(changed, plans=plans, inherited=inherited),
    )


def _recorded(sealed: Sealed, pin: cache.Pin) -> str:
    """The MD5 of an output: of the file in git, or else as dvc.lock pins it."""
    return md5(sealed.files[pin.path]) if pin.path in sealed.files else pin.md5


def compare_figures(sealed: Sealed, made: Project) -> Rebuilt:
    """Compare the figures of a day that another version has made: level D."""
    name = made.name(made.metrics)
    then, now = json.loads(sealed.file(name)), json.loads(made.metrics.read_bytes())
    outside = tuple(
        f"{key} {_figure(now.get(key))}, recorded {then[key]:.3f} ({low:.3f} to {high:.3f})"
        for key, low, high in _intervals(then.get("interval", {}))
        if now.get(key) is None or not low <= now[key] <= high
    )
    return Rebuilt(sealed.day, first="; ".join(_accuracy(sealed, made)), outside=outside)


def _intervals(recorded: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """The recorded 95% intervals of figures that are one number each."""
    for key, ends in recorded.items():
        if isinstance(ends, dict) and isinstance(ends.get("low"), float):
            yield key, ends["low"], ends["high"]


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


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


def _why(changed: list[str], *, plans: bool, inherited: str) -> str:
    if not plans:
        return (
            "plans are equal on every machine, so an image or a file of this day was changed: "
            "dayfold check --read-data"
        )
    if inherited:
        return f"its parent is another one since {inherited}"
    if changed:
        return f"fingerprint: {', '.join(changed)}"
    return "nothing known: dayfold's version and the fingerprint are the recorded ones"


def _difference(sealed: Sealed, made: Project, objects: Path, path: str) -> str:
    """What differs in a file: the tensor and by how much, or the first line."""
    name, new = Path(path).name, made.root / path
    if not new.exists():
        return f"{name} was not made"
    old = sealed.files.get(path)
    if old is None:
        [key] = [pin.md5 for pin in sealed.outs() if pin.path == path]
        kept = cache.object_path(objects, key)
        if not kept.exists():
            return f"{name} (the recorded one is not here: dayfold check)"
        if path == made.name(made.model):
            return _tensors(kept, new)
        old = kept.read_bytes()
    pairs = zip(old.splitlines(), new.read_bytes().splitlines(), strict=False)
    for number, (before, after) in enumerate(pairs, start=1):
        if before != after:
            shown = [line.decode(errors="replace").strip()[:100] for line in (before, after)]
            return f"{name} line {number}: {shown[0]!r} recorded, {shown[1]!r} here"
    return f"{name}: one is longer than the other"


def _tensors(kept: Path, new: Path) -> str:
    """Say how many tensors of the model differ from the recorded one's, and which the most."""
    from dayfold.learning import network

    try:
        old, made = network.load(kept), network.load(new)
    except ModelError as error:
        return f"model ({error.what})"
    if old.state.keys() != made.state.keys():
        return "model: other tensors"
    shapes = [name for name, one in old.state.items() if one.shape != made.state[name].shape]
    if shapes:
        return f"model: {shapes[0]} has another shape"
    gaps = {
        name: float((one.double() - made.state[name].double()).abs().max())
        for name, one in old.state.items()
        if one.numel() and not one.equal(made.state[name])
    }
    if not gaps:
        keys = sorted(key for key in made.metadata if made.metadata[key] != old.metadata.get(key))
        return f"model: the tensors are equal, its metadata differ ({', '.join(keys)})"
    worst = max(gaps, key=gaps.__getitem__)
    return (
        f"model: {len(gaps)} of {len(old.state)} tensors, the most in {worst}, by {gaps[worst]:.2g}"
    )


def _accuracy(sealed: Sealed, made: Project) -> list[str]:
    """Say how far average_accuracy moved, where both have it."""
    name = "average_accuracy"
    then = json.loads(sealed.file(made.name(made.metrics))).get(name)
    now = json.loads(made.metrics.read_bytes()).get(name)
    if then is None or now is None:
        return []
    return [f"{name} {then:.3f} → {now:.3f}" if then != now else f"{name} equal"]


def shown(result: Rebuilt) -> str:
    """Return a day's result as a line, or two where it differs."""
    if result.problem:
        return f"{result.day}  not made: {result.problem}"
    if result.outside is not None:
        state = "DIFFERS" if result.outside else "within the recorded intervals"
        lines = (f"\n            {line}" for line in first_few(result.outside))
        return f"{result.day}  D {state}  {result.first}{''.join(lines)}"
    if result.is_identical:
        return f"{result.day}  identical"
    levels = "  ".join(
        f"{level} {'equal' if equal else 'DIFFERS'}"
        for level, equal in (("A", result.plans), ("B", result.bits))
    )
    return f"{result.day}  {levels}  {result.first}\n            why: {result.why}"


def summary(results: Sequence[Rebuilt]) -> str:
    """Return the last line: how many days are equal at which level."""
    identical = sum(result.is_identical for result in results)
    if identical == len(results):
        return f"{identical} of {len(results)} days identical, to the bit"
    made = [result for result in results if not result.problem]
    counts = [f"{identical} of {len(results)} days identical"]
    if own := [one for one in made if one.outside is None]:
        plans, bits = sum(one.plans for one in own), sum(one.bits for one in own)
        counts.append(
            f"of {len(own)} that were made, {plans} are equal at level A and {bits} at level B"
        )
    if others := [one for one in made if one.outside is not None]:
        within = sum(not one.outside for one in others)
        counts.append(
            f"{within} of {len(others)} made by another version are within the recorded intervals "
            "(level D)"
        )
    return "; ".join(counts)
