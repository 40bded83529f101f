"""How many CPUs may be used, and are idle."""

import math
import os
from pathlib import Path

PERIOD_US = "100000"  # the kernel's default


def cpus() -> int:
    """Return the number of CPUs that this process may use, 1 or more; parts are rounded up."""
    return max(1, math.ceil(min(len(_numbers()), quota())))


def _numbers() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def idle(seconds: float) -> float:
    """Watch this process's CPUs for some seconds; return how many of them were unused."""
    import psutil  # slow to import, and few commands ask

    used = psutil.cpu_percent(seconds, percpu=True)
    return sum(1 - used[number] / 100 for number in _numbers() if number < len(used))


def quota(root: Path = Path("/")) -> float:
    """Return the CPUs that the control groups grant (cgroups(7)); infinity without a limit.

    This is the least of this process's group and all above it, of versions 1 and 2, as far as
    /sys/fs/cgroup shows them: in a container the top is the container's own group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return math.inf  # no Linux
    limits = []
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers  # none in version 2
            group = top / name.lstrip("/")
            group = group if group.is_dir() and ".." not in group.parts else top
            limits += [_limit(one) for one in (group, *group.parents) if one.is_relative_to(top)]
    return min((limit for limit in limits if limit > 0), default=math.inf)  # 0: no limit


def _limit(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            granted, period = [*(folder / "cpu.max").read_text().split(), PERIOD_US][:2]
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            granted, period = ((folder / name).read_text() for name in names)
        return max(0, int(granted)) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return 0.0


def model_name() -> str:
    """Return the CPU's model name; "" if the system does not give it."""
    return _cpuinfo("model name")


def multiplies_bf16() -> bool:
    """Return whether the CPU has instructions for bf16; without them fp32 is faster."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in found if name.strip() == key), "")
