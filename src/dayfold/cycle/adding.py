"""Adding images: checked as a whole, then copied into the day's folder."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dayfold.cycle.opening import check_may_open, open_day
from dayfold.cycle.standing import standing
from dayfold.errors import CycleError, IntakeError
from dayfold.ledger import intake, manifest, splits
from dayfold.ledger.intake import Delivered, Delivery
from dayfold.project.console import Ticker
from dayfold.project.files import sha256, write_bytes
from dayfold.project.layout import Project, check_day


def add(project: Project, source: Path, *, day: str, move: bool = False) -> tuple[str, Delivery]:
    """Check the images of `source`/<class>/ and copy them to data/images/<day>/, or move them.

    Opens `day` if it is not open and there is a new image. All files are checked before the first
    is copied; if any is refused, IntakeError lists every one and nothing is added. Images that are
    known stay where they are. Returns the day and what was found.
    """
    source = Path(source)
    if not source.is_dir():
        raise IntakeError(f"{source} is not a folder.", mend="give the folder of class folders")
    now = standing(project)
    if now.day == check_day(day) and now.is_sealed:
        raise CycleError(
            f"{day} is sealed; its images are settled.",
            mend="give a later --day, or take the seal back: dayfold unseal",
        )
    opening = now.day != day
    if opening:
        check_may_open(project, now, day)
    history = manifest.history(project, now.next_parent if opening else now.params.parent)
    present = intake.inspect(project.images(day), history)
    today = {item.image: (item.label, project.name(item.path)) for item in present.images}
    with Ticker("checking", 0, "files") as ticker:
        delivery = intake.inspect(source, history, today=today, progress=ticker.so_far)
    targets = _targets(project, day, delivery, now.params.data.group)
    if delivery.problems:
        raise IntakeError(
            f"{len(delivery.problems)} problems in {source}; nothing was added:",
            problems=delivery.problems,
            mend="mend or remove these files and give the folder again",
        )
    if opening and delivery.images:
        open_day(project, day)
    with (
        Ticker("copying", len(targets), "files") as ticker,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for _ in pool.map(_copy, delivery.images, targets):
            ticker.advance(1)
    if move:
        for item in delivery.images:
            item.path.unlink()
    return day, delivery


def _targets(project: Project, day: str, delivery: Delivery, expression: str) -> list[Path]:
    """A free name for each image: its own, or with the head of its id where that is taken.

    An image without a group, or whose group another name would change, is a problem.
    """
    taken: set[Path] = set()
    targets = []
    for item in delivery.images:
        own = target = project.images(day) / item.label / item.path.name
        if own in taken or own.exists():
            stem = own.stem.encode()[:200].decode(errors="ignore")
            target = own.with_stem(f"{stem}-{item.image[:8]}")
        taken.add(target)
        targets.append(target)
        try:
            groups = {splits.group_of(project.name(path), expression) for path in (own, target)}
        except IntakeError as error:
            delivery.problems.append(error.what)
        else:
            if len(groups) > 1:
                delivery.problems.append(
                    f"{item.path}: the name is taken today, and another would change its group"
                )
    return targets


def _copy(item: Delivered, target: Path) -> None:
    data = item.path.read_bytes()
    if sha256(data) != item.image:
        raise IntakeError(f"{item.path} changed while it was being added.", mend="add it again")
    write_bytes(target, data)
