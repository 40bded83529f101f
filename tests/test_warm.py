"""A command that starts warm is as one that starts cold, but for the time: see warm.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import warm
from dayfold import __version__
from dayfold.project import vcs

pytestmark = pytest.mark.skipif(warm.HOME not in os.environ, reason="every command starts cold")
# DVC runs this as a stage; it shows what a stage gets from the one who called DVC.
STAGE = "read line; echo got $line $MINE; umask; dayfold --version; exit 7"


@pytest.fixture
def project(tmp_path, shell) -> Path:
    shell(tmp_path, "dvc", "init", "--quiet", "--no-scm")
    return tmp_path


def started(project: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        words,
        cwd=project,
        env={**vcs.environment(), **environment},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize("cold", [{}, {warm.COLD: "1"}, {"PYTHONHASHSEED": "1"}])
def test_streams_environment_umask_and_exit_code_are_the_callers_own(project, shell, cold):
    shell(project, "dvc", "stage", "add", "--quiet", "--name", "one", f"sh -c '{STAGE}'")
    with started(project, "sh", "-c", "umask 027; exec dvc repro", MINE="mine", **cold) as running:
        said, _ = running.communicate("a word\n")
    assert running.returncode == 255
    assert f"got a word mine\n0027\n{__version__}\n" in said
    assert "exited with 7" in said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_goes_by_its_own_name_and_with_its_caller(project, shell, number):
    shell(project, "dvc", "stage", "add", "--quiet", "--name", "one", "sleep 3")
    with started(project, sys.executable, "-m", "dvc", "repro") as running:
        assert running.stdout.readline() == "Running stage 'one':\n"
        (dvc,) = (
            process
            for process in psutil.process_iter(["cmdline"])
            if (process.info["cmdline"] or [])[1:3] == [f"{os.environ[warm.HOME]}/dvc", "repro"]
            and process.cwd() == str(project)
        )
        running.send_signal(number)
        assert running.wait(5) == -number
        assert psutil.wait_procs([dvc], timeout=5)[1] == []
