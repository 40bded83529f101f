"""What git recorded of a sealed day."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from dayfold.errors import CycleError, DayfoldError
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.manifest import HELD_OUT, History, Row
from dayfold.ledger.tables import Replayed, schema
from dayfold.project import pins, storage, vcs
from dayfold.project.files import parse_csv
from dayfold.project.layout import STAGES, Project

# Raised if git lacks a file of a day, or the file cannot be parsed.
UNREADABLE = (DayfoldError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError)
PLANS = STAGES[:3]  # their outputs are level A, those of the other stages level B


@dataclass(frozen=True)
class Sealed:
    """A sealed day as git recorded it; `files` has the bytes of its files by path.

    Files that the tag lacks or git cannot read are left out.
    """

    project: Project
    day: str
    files: Mapping[str, bytes]

    def file(self, path: str) -> bytes:
        """Return a file's bytes; CycleError if the tag has no such file."""
        if path not in self.files:
            what = f"{vcs.TAG}{self.day} has no readable {path}."
            raise CycleError(what, hint="dayfold check --read-data")
        return self.files[path]

    @cached_property
    def lock(self) -> dict[str, Any]:
        return dict(self._yaml(self.project.dvc_lock)["stages"])

    def outs(self, *stages: str) -> dict[str, str]:
        """Return path → MD5 of the outputs of these stages (by default all), in order."""
        return {
            out["path"]: out["md5"]
            for stage in (stages or STAGES)
            for out in self.lock.get(stage, {}).get("outs", [])
        }

    @cached_property
    def params(self) -> dict[str, Any]:
        """The values of params.yaml, unchecked: another version may have other keys."""
        return self._yaml(self.project.params)

    def _yaml(self, path: Path) -> dict[str, Any]:
        text = self.file(self.project.name(path))
        return dict(yaml.load(text, Loader=yaml.CSafeLoader))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return dict(json.loads(self.file(self.project.name(self.project.provenance))))

    @property
    def is_readable(self) -> bool:
        """Whether the files that hold the day's pins are in git and can be parsed."""
        try:
            self.pins, self.provenance["sha256"], self.parent
        except UNREADABLE:
            return False
        return True

    @property
    def parent(self) -> tuple[str, str]:
        """The parent's day and the sha256 of its manifest, as the manifest pins them."""
        name = self.project.name(self.project.manifest(self.day))
        return manifest.parent_of(self.file(name), name)

    def rows(self) -> pl.DataFrame:
        name = self.project.name(self.project.manifest(self.day))
        return parse_csv(self.file(name), schema(Row), name)

    @cached_property
    def tracked(self) -> dict[str, Any] | None:
        """DVC's entry for the day's image folder, from the .dvc file of the day or of its month."""
        for path in (self.project.tracked(self.day), self.project.tracked_month(self.day)):
            name = self.project.name(path)
            if name in self.files:
                entries = pins.entries(self.files[name], name)
                if self.day in entries:
                    return entries[self.day]
        return None

    @property
    def images_md5(self) -> str:
        return str(self.tracked["md5"]) if self.tracked else ""

    @cached_property
    def parent_md5(self) -> str:
        path = self.project.parent
        name = self.project.name(path.with_suffix(".dvc"))
        return str(pins.entries(self.file(name), name)[path.name]["md5"])

    @cached_property
    def pins(self) -> dict[str, str]:
        """Path → MD5 of all that DVC keeps or hashes of the day: its inputs and outputs."""
        pinned = {**self.outs(), self.project.name(self.project.parent): self.parent_md5}
        if self.images_md5:
            pinned[self.project.name(self.project.images(self.day))] = self.images_md5
        return pinned

    @property
    def handed_on(self) -> dict[str, str]:
        """Name → MD5 of each file that the next day gets in data/parent."""
        made, places = self.outs(), self.project.handed_on()
        return {kept.name: made[self.project.name(own)] for own, kept in places.items()}


def read(project: Project, days: Sequence[str]) -> dict[str, Sealed]:
    """Read the days' files from git by one process: a thousand days take seconds."""

    def paths_of(day: str) -> Iterable[str]:
        paths = (
            *(project.params, project.dvc_lock, project.parent.with_suffix(".dvc")),
            *(project.corrections(day), project.groups(day)),
            *(project.tracked(day), project.tracked_month(day)),
        )
        return map(project.name, paths)

    files = vcs.at_tags(project.root, days, paths_of)
    found = {day: Sealed(project, day, own_files) for day, own_files in files.items()}
    # Then the outputs that git keeps; dvc.lock names all outputs.
    made = {}
    for day, sealed in found.items():
        with suppress(*UNREADABLE):
            made[day] = sealed.outs()
    for day, more in vcs.at_tags(project.root, made, made.__getitem__).items():
        files[day].update(more)
    return found


def span(days: Sequence[str], among: Sequence[str]) -> str:
    """Return days as text; days that are consecutive in `among` become a range."""
    runs: list[list[str]] = []
    for day in days:
        if runs and among.index(day) == among.index(runs[-1][-1]) + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


@dataclass
class Usage:
    """An image, the day it arrived, the day that withdrew it or "", and sealed days by its use.

    The models of `tested` days were calibrated or tested with it; for `unknown` days the replay set
    is not in the cache.
    """

    image: str
    path: str
    split: str
    day: str
    until: str
    trained: list[str] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def days(self) -> list[str]:
        """The days that cannot be made again without the image's bytes, in order."""
        return sorted({self.day, *self.trained, *self.tested})


def usage(history: History, images: Collection[str], days: Sequence[Sealed]) -> list[Usage]:
    """Return these images, sorted by path, with the sealed `days` that used each."""
    of_them = pl.col("image").is_in(list(images))
    columns = ("image", "path", "split", "day", "on")
    live = history.images.with_columns(on=pl.lit("")).filter(of_them).select(columns)
    gone = history.corrections.filter(of_them, pl.col("action") == "withdraw").select(columns)
    found = [Usage(*row) for part in (live, gone) for row in part.iter_rows()]
    for sealed in days if found else ():
        replayed = _replayed(sealed)
        for entry in found:
            if sealed.day < entry.day or (entry.until and sealed.day >= entry.until):
                continue
            if entry.split in HELD_OUT:
                entry.tested.append(sealed.day)
            elif sealed.day == entry.day or (replayed is not None and entry.image in replayed):
                entry.trained.append(sealed.day)
            elif replayed is None:
                entry.unknown.append(sealed.day)
    return sorted(found, key=lambda one: one.path)


def _replayed(sealed: Sealed) -> set[str] | None:
    project = sealed.project
    try:
        kept = storage.object_path(project.root, sealed.outs()[project.name(project.replay)])
        return set(tables.read(kept, Replayed)["image"])
    except UNREADABLE:
        return None


def erased_inputs(
    project: Project, history: History, days: Sequence[Sealed]
) -> dict[str, list[str]]:
    """Return day → paths of the erased images that the day cannot be made again without."""
    found: dict[str, list[str]] = {}
    for entry in usage(history, corrections.withdrawals(project, corrections.ERASE), days):
        for day in entry.days:
            found.setdefault(day, []).append(entry.path)
    return found
