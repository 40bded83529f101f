"""How many CPUs this process may use: by affinity, and by the quota of its control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PERIOD_US = 100_000  # the kernel's own, where none is said


def cpus() -> int:
    """Return the CPUs that this process may use, 1 or more; parts of one are rounded up."""
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(affinity, quota())))


def quota(root: Path = Path("/")) -> float:
    """Return the CPUs that the control groups grant (cgroups(7)); infinity without a limit."""
    limits = [
        limit
        for group, top in _groups(root)
        for folder in (group, *group.parents)
        if folder.is_relative_to(top)
        for limit in (_limit(folder),)
        if limit > 0
    ]
    return min(limits, default=math.inf)


def _groups(root: Path) -> Iterator[tuple[Path, Path]]:
    """This process's group in each hierarchy that limits CPU time, and the hierarchy's top."""
    try:
        own = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return  # no Linux
    names = {}
    for line in own:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            names["cgroup2" if number == "0" else "cgroup"] = name
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, mount = before.split(), after.split()
        kind = mount[0] if mount else ""
        if kind not in names or (kind == "cgroup" and "cpu" not in mount[-1].split(",")):
            continue
        top = root / fields[4].lstrip("/")
        shown = PurePosixPath(fields[3])  # the group that is mounted: in a container its own
        own_group = PurePosixPath(names[kind])
        inside = own_group.is_relative_to(shown)
        below = own_group.relative_to(shown) if inside else PurePosixPath()
        # Seen from a namespace below it a group is named /..: then the top is all there is to see.
        yield (top if ".." in below.parts else top / below), top


def _limit(folder: Path) -> float:
    """The CPUs that one group grants; 0 where it says nothing."""
    try:
        if (folder / "cpu.max").exists():
            granted_us, *period_us = (folder / "cpu.max").read_text().split()
            if granted_us == "max":
                return 0.0
            return int(granted_us) / (int(period_us[0]) if period_us else PERIOD_US)
        granted = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return max(0, granted) / period
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0
