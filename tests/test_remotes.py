"""Remotes as teams have them: S3 and SSH, by servers on this machine, from the push to an erase."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from builders import RealProject, a_free_port
from dayfold import create
from dayfold.demo import DAYS
from dayfold.ledger import manifest
from dayfold.project import storage, vcs
from dayfold.project.files import md5_file
from dayfold.proof.verify import verify

pytestmark = pytest.mark.slow
ONE, TWO, THREE = DAYS[:3]


@dataclass
class Store:
    """A remote: its URL, DVC's options for it, those of each machine alone, and what it holds.

    `held` returns the MD5 of every object's bytes, as the server or the disk has them.
    """

    url: str
    options: dict[str, str]
    own: dict[str, str]
    held: Callable[[], list[str]]


@contextmanager
def running(words: list[str], port: int, log: Path) -> Iterator[None]:
    """A server that listens on the port, until the block ends."""
    with log.open("wb") as said, subprocess.Popen(words, stdout=said, stderr=said) as server:
        try:
            until = time.monotonic() + 60
            while not _listens(port):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def s3(folder: Path) -> Iterator[Store]:
    import boto3

    port = a_free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    endpoint = f"http://127.0.0.1:{port}"
    own = {"access_key_id": "a-key", "secret_access_key": "a-secret"}
    with running(words, port, folder / "s3.log"):
        bucket = boto3.resource(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="a-key",
            aws_secret_access_key="a-secret",  # noqa: S106 (moto takes any)
        ).create_bucket(Bucket="scans")

        def held() -> list[str]:  # the ETag of an object that came in one part is its MD5
            return [one.e_tag.strip('"') for one in bucket.objects.all()]

        options = {"endpointurl": endpoint, "region": "us-east-1"}
        yield Store("s3://scans/store", options, own, held)


@contextmanager
def ssh(folder: Path) -> Iterator[Store]:
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if not sshd and "CI" not in os.environ:
        pytest.skip("no sshd here: apt install openssh-server")
    assert sshd, "CI is set, so SSH must be tried: install openssh-server"
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    port, store = a_free_port(), folder / "store"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\n"
    )

    def held() -> list[str]:
        return [md5_file(path) for path in store.rglob("*") if path.is_file()]

    words = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    with running(words, port, folder / "ssh.log"):
        url = f"ssh://{getuser()}@127.0.0.1:{port}{store}"
        yield Store(url, {}, {"keyfile": str(folder / "user")}, held)


def set_up(project: RealProject, store: Store) -> None:
    """Give a clone what each machine keeps to itself."""
    for name, value in store.own.items():
        project.dvc("remote", "modify", "--local", "store", name, value)


@pytest.mark.parametrize("kind", [s3, ssh])
def test_a_project_is_pushed_cloned_checked_and_erased(kind, copy, tmp_path, shell):
    # Its first day alone, for time.
    copy.git("reset", "--quiet", "--hard", f"day/{ONE}")
    copy.git("tag", "--delete", f"day/{TWO}", f"day/{THREE}")
    for day in (TWO, THREE):
        shutil.rmtree(copy.images(day))
    copy.dvc("checkout", "--quiet")
    with kind(tmp_path) as store:
        copy.dvc("remote", "add", "--default", "store", store.url)
        for name, value in store.options.items():
            copy.dvc("remote", "modify", "store", name, value)
        copy.git("commit", "--quiet", "--all", "--message", "Share")
        set_up(copy, store)
        # Sealed before there was a remote: else DVC passes over their tags.
        storage.configure_locally(copy.root)
        assert verify(copy, read_data=False).unpushed == [ONE]
        copy.dvc("push", "--quiet", "--all-tags")
        found = verify(copy, read_data=False)
        assert (found.unpushed, found.problem) == ([], "")
        shell(tmp_path, "git", "clone", "--quiet", str(copy.root), "clone")
        clone = RealProject(tmp_path / "clone")
        set_up(clone, store)
        [one] = verify(clone, read_data=True).absent
        assert (one.fix, "the remote store has it" in one.what) == ("dvc pull", True)
        clone.dvc("pull", "--quiet")
        # Erased in the clone, the image is in the bucket or folder no more.
        image = manifest.history(clone, ONE).images.row(0, named=True)
        key, before = md5_file(clone.root / image["path"]), store.held()
        assert key in before
        words = ("--erase", "--reason", "consent", "--yes", "--day", TWO)
        assert "remote store: 1 erased" in clone.dayfold("withdraw", image["path"], *words)
        after = store.held()
        assert key not in after
        assert len(after) == len(before)  # its text is in its place
        shell(tmp_path, "git", "clone", "--quiet", str(copy.root), "later")
        later = RealProject(tmp_path / "later")
        set_up(later, store)
        later.dvc("pull", "--quiet")
        assert vcs.stale(later.root) == []


def test_a_default_remote_that_is_not_set_up_counts_as_none(copy):
    copy.dvc("config", "core.remote", "nowhere")
    said = copy.dayfold("check")
    assert "ok    remote     none, so images and models are on this machine only" in said
    assert "Traceback" not in said


def test_a_file_url_that_dvc_takes_for_a_folder_of_the_project_is_told(copy, tmp_path, shell):
    url = f"file://{tmp_path}/the%20store"
    copy.dvc("remote", "add", "--default", "store", url)
    said = copy.dayfold("check", code=1)
    fix = f"dvc remote modify store url '{tmp_path}/the store'"
    assert fix in said
    copy.sh("-c", fix)
    assert "file:" not in copy.dayfold("check", "--fix")
    new = tmp_path / "new"
    new.mkdir()
    shell(new, "git", "init", "--quiet")
    shell(new, "dvc", "init", "--quiet")
    create.set_remote(new, url)
    assert storage.remote_urls(new)[create.REMOTE] == f"{tmp_path}/the store"


def test_a_server_that_does_not_answer_is_told_and_stops_nothing(copy, tmp_path):
    port = a_free_port()
    copy.dvc("remote", "add", "--default", "store", f"http://127.0.0.1:{port}/x")
    storage.configure_locally(copy.root)
    shutil.rmtree(copy.root / ".dvc" / "cache")
    said = copy.dayfold("check")
    assert f"store did not say what it has: remote store (http://127.0.0.1:{port}/x)" in said
    told = "not here; the remote store could not be asked (remote store (http"
    assert any(one.what.startswith(told) for one in verify(copy, read_data=False).absent)
