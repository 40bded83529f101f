"""Files are whole or not there, and have one form only."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dayfold.errors import CycleError
from dayfold.project.files import (
    canonical_json,
    csv_bytes,
    json_bytes,
    only_one,
    sha256,
    sha256_file,
    write_bytes,
)
from dayfold.project.layout import Project


def test_a_file_is_written_whole_or_stays_as_it_was_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "a.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    with pytest.raises(TypeError):
        write_bytes(path, "text")
    assert path.read_bytes() == b"two"
    assert [name for name in path.parent.iterdir() if not name.name.startswith(".")] == [path]
    # A link is replaced and never written through.
    kept = tmp_path / "new" / "folder" / "cache"
    kept.write_bytes(b"cached")
    path.unlink()
    os.link(kept, path)
    write_bytes(path, b"new")
    assert (kept.read_bytes(), path.read_bytes()) == (b"cached", b"new")
    assert sorted(path.parent.iterdir()) == [path, kept]
    # A pipe and an open stream are no place for a file.
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout, which root may replace
    for name in ("pipe", "stdout"):
        with pytest.raises(OSError, match="Not a regular file"):
            write_bytes(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "stdout").is_symlink()


def test_the_longest_names_can_be_written_and_like_ones_do_not_get_into_each_others_way(tmp_path):
    names = [letter * count + ".png" for letter, count in (("a", 251), ("é", 125), ("猫", 83))]
    names += [f"{'a' * 230}{number}" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: write_bytes(tmp_path / name, name.encode()), names))
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert [(tmp_path / name).read_bytes().decode() for name in names] == names


def test_a_hash_is_that_of_the_bytes(tmp_path):
    # The first of NIST's example values.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(b"abc") == sha256_file(tmp_path / "abc") == abc


def test_csv_and_json_have_one_form():
    rows = [("a,b", 1, 0.1, None), ('"', 2, 1e-9, "x\ny"), ("é", 3, 3.0, "")]
    expected = 'name,n,x,y\n"a,b",1,0.1,\n"""",2,1e-09,"x\ny"\né,3,3.0,\n'
    assert csv_bytes(["name", "n", "x", "y"], rows) == expected.encode()
    value = {"b": [1, 0.1], "a": "é"}
    assert json_bytes(value) == '{\n  "b": [\n    1,\n    0.1\n  ],\n  "a": "é"\n}\n'.encode()
    assert canonical_json(value) == '{"a":"\\u00e9","b":[1,0.1]}'
    for form in (json_bytes, canonical_json):
        with pytest.raises(ValueError, match="not JSON compliant"):
            form({"a": float("nan")})


def test_only_one_process_holds_a_lock_and_the_other_is_told_who(tmp_path):
    lock = tmp_path / "tmp" / "lock"
    code = (
        "import sys\nfrom pathlib import Path\nfrom dayfold.project.files import only_one\n"
        "with only_one(Path(sys.argv[1]), 'training'):\n    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(CycleError, match=rf"is training in this .*process {other.pid}\)"),
            only_one(lock, "training"),
        ):
            pass
        other.kill()
        other.wait()
        # The lock fell with its process.
        with only_one(lock, "training"):
            assert lock.read_text() == f"{os.getpid()}\n"


def test_a_project_is_found_from_anywhere_within_it(tmp_path):
    inside = tmp_path / "project" / "data" / "images"
    inside.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / "project" / name).touch()
    assert Project.find(inside).root == tmp_path / "project"
    with pytest.raises(CycleError, match="No dayfold project in") as caught:
        Project.find(tmp_path)
    assert "dayfold init" in caught.value.hint
