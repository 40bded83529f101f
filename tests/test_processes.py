"""Several processes train the plan of one: the same model from run to run, and after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import product

import psutil
import pytest

from builders import DAYS, a_free_port, make_trainable, run_stages, table, take_in
from dayfold.errors import ParamsError
from dayfold.learning import checkpoint, parallel
from dayfold.learning.parallel import Team
from dayfold.project import params as params_file
from dayfold.project.files import sha256_file
from dayfold.project.layout import Project
from dayfold.stages import replay, train, weights
from test_lifeline import see_it_die

RECIPE = {"train__updates": 30, "train__batch_size": 16, "train__precision": "fp32"}
OFTEN = {checkpoint.INTERVAL: "0.3"}  # less than an epoch takes
TRAIN = (
    "import sys\nfrom pathlib import Path\nfrom dayfold.project import params\n"
    "from dayfold.project.layout import Project\nfrom dayfold.stages import train\n"
    "project = Project(Path(sys.argv[1]))\ntrain.run(project, params.read(project.params))\n"
)


def test_the_slices_are_the_batch_in_even_pieces():
    for images, size in product((2, 7, 8, 32, 33), (1, 2, 3)):
        whole = list(range(images))
        pieces = [whole[Team(rank, size).slice(images)] for rank in range(size)]
        assert [image for piece in pieces for image in piece] == whole
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_a_batch_too_small_and_machines_that_cannot_share_the_processes_are_refused(
    project, monkeypatch
):
    chosen = params_file.read(project.params)
    with pytest.raises(ParamsError) as caught:
        params_file.with_changes(chosen, {"train.batch_size": 8, "train.processes": 5})
    assert "batch_size 8 is too small for 5 processes: each needs 2" in caught.value.problems[0]
    for machines in ("3", "0", "x", "1:4"):
        monkeypatch.setenv("PET_NNODES", machines)
        with pytest.raises(ParamsError, match="does not divide 4 processes"):
            parallel.launch("nothing", [], processes=4, threads=1)


@pytest.fixture
def day(tmp_path):
    """A day that is ready to be trained, in two processes."""
    project = make_trainable(tmp_path / "project", **RECIPE, train__processes=2)
    take_in(project, DAYS[0], {"cat": range(40), "dog": range(200, 240)})
    run_stages(project, weights, replay)
    return project


def start(project, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(project.root)],
        env={**os.environ, **OFTEN, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(running):
    said, _ = running.communicate(timeout=300)
    return said


def facts(project, *names):
    found = json.loads(project.provenance.read_text())
    return [found[name] for name in names]


@pytest.mark.slow
def test_two_processes_train_the_plan_of_one_and_the_same_model_after_a_kill(day):
    with start(day) as running:
        said = finish(running)
    assert running.returncode == 0, said
    # Only one of them speaks.
    assert said.count("update 30/30") == 1
    made = sha256_file(day.model), sha256_file(day.plot("training"))
    several = table(day.plot("training"))
    draws, validation, fingerprint = facts(day, "draws", "validation", "fingerprint")
    assert fingerprint["processes"] == 2
    day.model.unlink()

    with start(day) as running:
        for line in running.stdout:
            if line.startswith("update 12/30"):
                break
        below = psutil.Process(running.pid).children(recursive=True)
        assert len(below) == 2
        running.send_signal(signal.SIGKILL)
        for one in below:
            see_it_die(one.pid)
    assert not day.model.exists()
    with start(day) as running:
        said = finish(running)
    assert "going on from update" in said
    assert (sha256_file(day.model), sha256_file(day.plot("training"))) == made

    params = params_file.read(day.params)
    train.run(day, params_file.with_changes(params, {"train.processes": 1}))
    alone = table(day.plot("training"))
    assert facts(day, "draws", "validation") == [draws, validation]
    assert validation["right"] == validation["images"] > 0
    assert [one["learning_rate"] for one in alone] == [two["learning_rate"] for two in several]
    # Batch norms see a slice where one process's see the batch: not the same, and as good.
    assert sha256_file(day.model) != made[0]
    assert float(alone[0]["loss"]) == pytest.approx(float(several[0]["loss"]), abs=0.1)


def on_machine(number, project, port):
    """One of two machines, by torchrun's own options; here both are this one, with a clone each."""
    options = {"NNODES": 2, "NODE_RANK": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return start(project, **{f"PET_{name}": str(value) for name, value in options.items()})


@pytest.mark.slow
def test_another_machine_with_other_inputs_is_noticed_and_told_without_a_traceback(day, tmp_path):
    other = Project(tmp_path / "clone")
    shutil.copytree(day.root, other.root)
    params_file.edit(other.params, {"seed": 1})
    port = a_free_port()
    with on_machine(0, day, port) as first, on_machine(1, other, port) as second:
        said = finish(first), finish(second)
    assert (first.returncode, second.returncode) != (0, 0)
    assert (
        "The inputs or the fingerprint of process 1 of 2 differ from those of process 0" in said[0]
    )
    assert not day.model.exists()


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_without_a_traceback(day):
    with start(day) as running:
        for line in running.stdout:
            if line.startswith("update 6/30"):
                break
        below = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        said = finish(running)
        for one in below:
            see_it_die(one.pid)
    assert running.returncode == 128 + signal.SIGINT
    assert "Traceback" not in said
