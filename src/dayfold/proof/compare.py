"""What was made again against what was recorded: what differs first, by how much, and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dayfold.errors import ModelError
from dayfold.project import cache
from dayfold.project.files import md5_file, sha256_file
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
    """

    day: str
    plans: bool
    bits: bool
    first: str = ""
    why: str = ""
    problem: str = ""

    @property
    def identical(self) -> bool:
        """Whether all of it is, to the bit."""
        return self.plans and self.bits and not self.problem


def compare(sealed: Sealed, made: Project, objects: Path, *, inherited: str = "") -> Rebuilt:
    """Compare a day made again in `made` with its record; `objects` is DVC's cache.

    Every output is compared by the MD5 of dvc.lock, and by the sha256 of provenance.json where that
    has one. `inherited` is the day since which the parent, made again too, is another one.
    """
    mine, then = (json.loads(made.provenance.read_bytes()), sealed.provenance)
    own = made.name(made.provenance)
    differing = [
        pin.path
        for pin in sealed.outs()
        # What may differ of provenance.json is looked at key by key.
        if pin.path != own and not _is(made.root / pin.path, pin.md5, _sha256(sealed, pin.path))
    ]
    draws = all(mine.get(key) == then.get(key) for key in DRAWS)
    planned = {pin.path for pin in sealed.outs(*PLANS)}
    plans = not planned & set(differing) and draws
    bits = not set(differing) - planned
    if plans and bits:
        return Rebuilt(sealed.day, True, True)
    told = [_told(sealed, made, objects, path) for path in differing[:1]] or ["draws"]
    model = made.name(made.model)
    if model in differing[1:]:
        told.append(_told(sealed, made, objects, model))
    told += drift(sealed, made)
    changed = differences(then["fingerprint"], mine["fingerprint"])
    return Rebuilt(
        sealed.day, plans, bits, "; ".join(told), _why(changed, plans=plans, inherited=inherited)
    )


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
            "dayfold verify --read-data"
        )
    if inherited:
        return f"its parent is another one since {inherited}"
    if changed:
        return f"fingerprint: {', '.join(changed)}"
    return "nothing known: dayfold's version and the fingerprint are the recorded ones"


def _sha256(sealed: Sealed, path: str) -> str | None:
    """The sha256 that provenance.json pins of an output, if it does."""
    project = sealed.project
    names = {
        project.manifest(sealed.day): "manifest",
        project.weights: "weights",
        project.replay: "replay",
        project.shares: "shares",
        project.model: "model",
    }
    pins: dict[str, str] = sealed.provenance["sha256"]
    return pins.get(names.get(project.root / path, ""))


def _is(path: Path, key: str, sha256: str | None) -> bool:
    if not path.exists() or md5_file(path) != key:
        return False
    return sha256 is None or sha256_file(path) == sha256


def _told(sealed: Sealed, made: Project, objects: Path, path: str) -> str:
    """What differs in a file: the tensor and by how much, or the first line."""
    name, new = Path(path).name, made.root / path
    if not new.exists():
        return f"{name} was not made"
    if path == made.name(made.model):
        return tensors(sealed, new, objects, path)
    old = sealed.files.get(path)
    if old is None:
        [key] = [pin.md5 for pin in sealed.outs() if pin.path == path]
        kept = cache.object_path(objects, key)
        if not kept.exists():
            return f"{name} (the recorded one is not here: dayfold verify)"
        old = kept.read_bytes()
    pairs = zip(old.splitlines(), new.read_bytes().splitlines(), strict=False)
    for number, (before, after) in enumerate(pairs, start=1):
        if before != after:
            shown = [line.decode(errors="replace").strip()[:100] for line in (before, after)]
            return f"{name} line {number}: {shown[0]!r} recorded, {shown[1]!r} here"
    return f"{name}: one is longer than the other"


def tensors(sealed: Sealed, new: Path, objects: Path, path: str) -> str:
    """Say how many tensors of the model differ from the recorded one's, and which the most."""
    from dayfold.learning import network

    [key] = [pin.md5 for pin in sealed.outs("train") if pin.path == path]
    kept = cache.object_path(objects, key)
    if not kept.exists():
        return "model (the recorded one is not here: dayfold verify)"
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


def drift(sealed: Sealed, made: Project) -> list[str]:
    """Say how far average_accuracy moved, where it did: level D."""
    if not made.metrics.exists():
        return []
    name = "average_accuracy"
    then = json.loads(sealed.file(made.name(made.metrics))).get(name)
    now = json.loads(made.metrics.read_bytes()).get(name)
    if then is None or now is None:
        return []
    return [f"{name} {then:.3f} → {now:.3f}" if then != now else f"{name} equal"]
