"""CPUs are counted by affinity and by the quota of control groups, of both versions."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dayfold.project import cpus


def system(folder: Path, *, own: str, files: dict[str, str]) -> Path:
    """A file tree as the kernel shows it."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("/job", {"job": "max 100000\n"}, math.inf),
        ("/job", {"job": "200000 100000\n"}, 2.0),
        ("/job", {"job": "50000 100000\n"}, 0.5),
        ("/job", {"job": "150000\n"}, 1.5),
        ("/job", {"job": "30000 20000\n"}, 1.5),
        ("/job", {"job": "nonsense\n"}, math.inf),
        ("/job", {"job": ""}, math.inf),
        # The least of a group and all above it counts, and of no other.
        ("/a/b/c", {"a": "300000", "a/b": "max", "a/b/c": "700000", "x": "1 100000"}, 3.0),
        # In a container without a namespace the name is the host's, and the mount its own group.
        ("/docker/1f2e", {".": "400000 100000"}, 4.0),
        # With one, the group is the top; one outside of what is mounted is as the top.
        ("/", {".": "250000 100000"}, 2.5),
        ("/../../other", {".": "100000 100000"}, 1.0),
    ],
)
def test_the_quota_of_version_2_is_time_by_period(tmp_path, own, limits, expected):
    files = {f"{name}/cpu.max": text for name, text in limits.items()}
    assert cpus.quota(system(tmp_path, own=f"0::{own}\n", files=files)) == expected


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"job/step": "-1"}, math.inf),
        ({"job/step": "150000"}, 1.5),
        ({"job/step": "0"}, math.inf),
        ({"job": "200000", "job/step": "-1"}, 2.0),
    ],
)
def test_version_1_has_a_file_for_each(tmp_path, quotas, expected):
    files = {
        f"cpu,cpuacct/{name}/cpu.cfs_{what}_us": text
        for name, quota in quotas.items()
        for what, text in (("quota", quota), ("period", "100000"))
    }
    own = "5:memory:/job\n4:cpu,cpuacct:/job/step\n0::/\n"
    assert cpus.quota(system(tmp_path, own=own, files=files)) == expected


def test_no_more_than_the_affinity_and_at_least_one_of_which_some_are_idle(tmp_path):
    assert cpus.quota(tmp_path) == math.inf  # where there are no control groups
    here = sorted(os.sched_getaffinity(0))
    assert 1 <= cpus.cpus() <= len(here)
    assert 0 <= cpus.idle(0.05) <= len(here)
    code = "from dayfold.project.cpus import cpus; print(cpus())"
    words = ("taskset", "--cpu-list", str(here[0]), sys.executable, "-c", code)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_real_quota_of_one_cpu_is_one_cpu():
    for folder, file, text in (
        ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "100000"),
        ("/sys/fs/cgroup", "cpu.max", "100000 100000"),
    ):
        group = Path(folder) / f"dayfold-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(text)
            code = "from dayfold.project.cpus import cpus, quota; print(cpus(), quota())"
            shell = f'echo $$ > {group}/cgroup.procs && exec {sys.executable} -c "{code}"'
            done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
            assert done.stdout == "1 1.0\n"
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("no control group with a quota can be made here")


def test_nothing_else_counts_cpus(repository):
    for path in (repository / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        counts = "cpu_count" in text or "getaffinity" in text
        assert counts == (path.name == "cpus.py"), path
