"""benchmarks/gpu.sh on a CPU, in small: where there is a GPU, it has to run the first time."""

import os
import subprocess
import sys

import pytest

from builders import ROOT


def table(tmp_path, python, *words):
    """The rows of the script's table, by what each is of."""
    environment = {**os.environ, "PYTHON": str(python), "MINUTES": "60"}
    command = [ROOT / "benchmarks" / "gpu.sh", "-", tmp_path / "out", "--device", "cpu", *words]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert done.stdout.endswith("\n".join(lines) + "\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {what: (found, met) for what, found, met in rows}


@pytest.mark.slow
@pytest.mark.cold
def test_every_step_fills_its_rows(tmp_path):
    found = table(tmp_path, sys.executable, "--size", "16", "--images", "40", "--updates", "3")
    speed = found.pop("updates and validation, of the bare loop")
    assert float(speed[0]) > 0
    assert {what: met for what, (_, met) in found.items() if met} == {
        "three trainings, two at once: the same bits": "met",
        "killed and resumed: the same bits": "met",
        "two processes of one training": "met",
    }
    assert found["a day of 40 images of 16 px"][0].endswith(" of them training")
    assert "MiB of the GPU" in found["peak memory of the day"][0]
    assert "going on from update" in found["killed and resumed: the same bits"][0]


def test_a_step_that_fails_is_a_row_and_does_not_stop_the_next(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    steps = ("day", "speed", "again", "kill", "two")
    assert table(tmp_path, python) == dict.fromkeys(steps, ("exit code 3, see gpu.log", "MISSED"))
