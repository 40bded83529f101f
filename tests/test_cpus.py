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


def v2(folder: Path, own: str, files: dict[str, str]) -> float:
    texts = {f"{name}/cpu.max": text for name, text in files.items()}
    return cpus.quota(system(folder, own=f"0::{own}\n", files=texts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", math.inf),
        ("200000 100000\n", 2.0),
        ("50000 100000\n", 0.5),
        ("150000\n", 1.5),
        ("30000 20000\n", 1.5),
        ("nonsense\n", math.inf),
        ("", math.inf),
    ],
)
def test_a_limit_is_time_by_period(tmp_path, text, expected):
    assert v2(tmp_path, "/job", {"job": text}) == expected


def test_the_least_of_a_group_and_all_above_it_counts(tmp_path):
    files = {"a": "300000 100000", "a/b": "max 100000", "a/b/c": "700000 100000", "x": "1 100000"}
    assert v2(tmp_path, "/a/b/c", files) == 3.0


def test_in_a_container_the_mounted_group_is_its_own(tmp_path):
    # Without a namespace: the name is that of the host, and the mount begins at the group itself.
    assert v2(tmp_path, "/docker/1f2e", {".": "400000 100000"}) == 4.0


def test_with_a_namespace_the_group_is_the_top(tmp_path):
    assert v2(tmp_path, "/", {".": "250000 100000"}) == 2.5


def test_a_group_outside_of_what_is_mounted_is_as_its_top(tmp_path):
    assert v2(tmp_path, "/../../other", {".": "100000 100000"}) == 1.0


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", math.inf), ("150000", 1.5), ("0", math.inf)]
)
def test_version_1_has_a_file_for_each(tmp_path, quota, expected):
    job = "cpu,cpuacct/job/step"
    files = {f"{job}/cpu.cfs_quota_us": quota, f"{job}/cpu.cfs_period_us": "100000"}
    own = "5:memory:/job\n4:cpu,cpuacct:/job/step\n0::/\n"
    assert cpus.quota(system(tmp_path, own=own, files=files)) == expected


def test_of_version_1_the_least_above_counts_too(tmp_path):
    files = {
        f"cpu,cpuacct/{name}/cpu.cfs_{what}_us": text
        for name, quota in (("pod", "200000"), ("pod/box", "-1"))
        for what, text in (("quota", quota), ("period", "100000"))
    }
    own = "3:cpu,cpuacct:/pod/box\n"
    assert cpus.quota(system(tmp_path, own=own, files=files)) == 2.0


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path):
    assert cpus.quota(tmp_path) == math.inf


def test_no_more_than_the_affinity_and_at_least_one():
    here = sorted(os.sched_getaffinity(0))
    assert 1 <= cpus.cpus() <= len(here)
    code = "from dayfold.project.cpus import cpus; print(cpus())"
    words = ("taskset", "--cpu-list", str(here[0]), sys.executable, "-c", code)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def groups() -> list[tuple[Path, str, str]]:
    """Where a group with a quota can be made here: folder, file of the quota, its text."""
    return [
        (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "100000"),
        (Path("/sys/fs/cgroup"), "cpu.max", "100000 100000"),
    ]


def test_a_real_quota_of_one_cpu_is_one_cpu():
    for folder, file, text in groups():
        group = folder / f"dayfold-test-{os.getpid()}"
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
