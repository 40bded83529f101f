"""A project that 0.1.0 sealed is read by this version, and goes on with it.

tests/old/0.1.0.tar.xz is the git repository and the DVC cache of three days made by dayfold 0.1.0.
The models start from constant weights and learn at a rate of 1e-30, so they pack into kilobytes.
"""

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from builders import RealProject, place
from dayfold import __version__
from dayfold.project import params as params_file

ARCHIVE = Path(__file__).parent / "old" / "0.1.0.tar.xz"
DAYS = ("2025-06-02", "2025-06-03", "2025-06-04")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        # Python 3.11.3 and older have no filters.
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(root, **options)  # noqa: S202 - an archive of ours
    root = root / "scans"
    subprocess.run(["git", "reset", "--quiet", "--hard"], cwd=root, check=True)
    subprocess.run(["dvc", "checkout", "--quiet"], cwd=root, check=True)
    return RealProject(root)


def test_it_is_told_verified_looked_at_and_takes_its_next_day(made, tmp_path):
    said = made.dayfold("status", code=1)
    assert f"pinned to dayfold 0.1.0, installed is {__version__}" in said
    assert "dayfold check --fix" in said
    made.dayfold("check", "--fix")
    assert params_file.read(made.params).dayfold == __version__
    assert params_file.read(made.params).train.updates == 2
    said = made.dayfold("check", "--read-data")
    assert "3 days from 2025-06-02 to 2025-06-04: nothing damaged" in said
    made.git("commit", "--quiet", "--all", "--message", "Go on with this version")
    assert all(day in made.dayfold("log") for day in DAYS)
    made.dayfold("report", "--day", DAYS[1])
    for number, label in enumerate(("cyst", "mass", "node")):
        place(tmp_path / "in", label, range(10 * number, 10 * number + 10))
    for path in (tmp_path / "in").glob("*/*"):
        path.rename(path.with_name(f"p{int(path.stem) % 5}_{path.name}"))  # its patient
    made.dayfold("run", str(tmp_path / "in"), "--day", "2025-06-05")
    assert "4 days from 2025-06-02" in made.dayfold("check", "--read-data")


def test_its_days_made_by_this_version_have_figures_within_their_intervals(made):
    said = made.dayfold("reproduce", DAYS[0], code=1)
    assert "made by dayfold 0.1.0" in said
    assert "pip install dayfold==0.1.0" in said
    said = made.dayfold("reproduce", DAYS[1], "--here")
    assert re.search(rf"differs: dayfold 0\.1\.0 → {__version__}, .*; expect D\n", said)
    assert f"{DAYS[1]}  D within the recorded intervals  average_accuracy equal" in said
    assert "0 of 1 days identical, to the bit; 1 D within the recorded intervals" in said
