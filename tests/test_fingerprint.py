"""The fingerprint: the same from process to process, and what differs is named."""

import json
import subprocess
import sys

import pytest
import torch

from dayfold.learning import device
from dayfold.learning.device import Machine
from dayfold.proof import reproduce

CODE = """
import json
from dayfold.learning import device
machine = device.resolve(device="cpu", precision="fp32", threads=1)
print(json.dumps(device.fingerprint(machine)))
"""


@pytest.fixture(scope="module")
def here():
    return device.fingerprint(device.resolve(device="cpu", precision="fp32", threads=1))


def test_another_process_has_the_same_fingerprint(here):
    said = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(said) == here
    assert reproduce.differences(json.loads(said), here) == []
    assert here["torch"] == torch.__version__
    assert (here["device"], here["precision"]) == ("cpu", "fp32")
    assert (here["threads"], here["processes"]) == (1, 1)
    assert here["cpu_features"]


def test_the_training_canary_tells_one_arithmetic_from_another(here):
    rounded = device.training_canary(Machine("cpu", "bf16", 1))
    assert rounded != here["training_canary"]
    assert device.training_canary(Machine("cpu", "fp32", 1)) == here["training_canary"]


def test_the_training_canary_is_of_the_blocks_of_the_network(here):
    machine = Machine("cpu", "fp32", 1)
    assert device.fingerprint(machine, "resnet34") == here
    other = device.fingerprint(machine, "resnet50")
    assert [key for key in here if other[key] != here[key]] == ["training_canary"]


def test_the_decode_canary_tells_one_resize_from_another(here, monkeypatch):
    squared = device.squared
    monkeypatch.setattr(device, "squared", lambda image, size: squared(image, size + 1)[:, 1:, 1:])
    assert device.decode_canary() != here["decode_canary"]


def test_every_difference_is_named_and_of_features_only_what_one_of_them_lacks():
    recorded = {
        "torch": "2.14.1+cpu",
        "cpu_features": "avx avx2 fma3",
        "threads": 2,
        "decode_canary": "a" * 64,
        "gone": "x",
    }
    here = {
        "torch": "2.14.1+cpu",
        "cpu_features": "avx avx2 avx512_bf16",
        "threads": 4,
        "processes": 1,
        "decode_canary": "b" * 64,
    }
    assert reproduce.differences(recorded, here) == [
        "cpu_features -fma3 +avx512_bf16",
        "threads 2 → 4",
        "decode_canary aaaaaaaaaaaa… → bbbbbbbbbbbb…",
    ]
