"""The first day's weights: every file that torchvision loads, a download that breaks, a cache."""

import itertools
import re
from collections import OrderedDict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from dayfold.errors import ModelError
from dayfold.learning import download, foreign, origin
from dayfold.project.files import sha256, sha256_file

NAME = "resnet18-published.pth"


def without_counters(state):
    return OrderedDict((name, t) for name, t in state.items() if "num_batches_tracked" not in name)


def as_parameters(state):
    """As files of 2016 have them: what is trained as a Parameter, statistics as plain tensors."""
    return OrderedDict(
        (name, tensor if "running" in name else torch.nn.Parameter(tensor))
        for name, tensor in state.items()
    )


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return resnet18(weights=None, num_classes=7).state_dict()


@pytest.fixture(scope="module")
def published(tmp_path_factory, state):
    """Both forms in which torchvision has published its file."""
    folder = tmp_path_factory.mktemp("published")
    old, new = folder / "old.pth", folder / "new.pth"
    pickled = as_parameters(without_counters(state))
    torch.save(pickled, old, _use_new_zipfile_serialization=False)
    torch.save(without_counters(state), new)
    return {"a pickle of Parameters": old, "a zip of tensors": new}


FORMS = {
    "as it is": lambda state: state,
    "without counters": without_counters,
    "Parameters": lambda state: as_parameters(without_counters(state)),
    "half precision": lambda state: {name: t.half() for name, t in state.items()},
    "double precision": lambda state: {name: t.double() for name, t in state.items()},
    "counters of torch 0.3": lambda state: {
        name: t.reshape(1) if t.ndim == 0 else t for name, t in state.items()
    },
    "not contiguous": lambda state: {
        name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t
        for name, t in state.items()
    },
    "another order": lambda state: dict(reversed(state.items())),
}


@pytest.mark.parametrize(
    ("form", "ending"), [*((form, ".pth") for form in FORMS), ("without counters", ".safetensors")]
)
def test_what_torchvision_loads_strictly_is_taken_to_the_same_weights(
    tmp_path, state, form, ending
):
    given = FORMS[form](state)
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save(given, path)
    else:
        save_file({name: t.detach().contiguous() for name, t in given.items()}, path)
    theirs = resnet18(weights=None, num_classes=7)
    theirs.load_state_dict(given, strict=True)
    ours = foreign.origin(foreign.read(path), list("abcdefg"), "weights")
    assert ours.classes == tuple("abcdefg")
    assert ours.state.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state[name], tensor), name
        assert type(ours.state[name]) is torch.Tensor
        assert not ours.state[name].requires_grad


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("", "module."),
        ("state_dict", "model."),
        ("model", ""),
        ("", "backbone."),
        ("model_state_dict", "_orig_mod.module."),
        ("state_dict", "model.backbone."),
    ],
)
def test_a_key_around_it_and_prefixes_are_taken_off(tmp_path, state, key, prefix):
    named = {prefix + name: tensor for name, tensor in without_counters(state).items()}
    whole = {key: named, "epoch": 3, "optimizer": {"state": {}}} if key else named
    torch.save(whole, tmp_path / "weights.pt")
    model = foreign.origin(foreign.read(tmp_path / "weights.pt"), (), "weights")
    assert torch.equal(model.state["conv1.weight"], state["conv1.weight"])
    assert model.state["fc.weight"].shape == (0, 512)


def test_two_networks_in_one_file_are_not_mixed(tmp_path, state):
    torch.save({**state, **{f"module.{n}": t for n, t in state.items()}}, tmp_path / "two.pt")
    with pytest.raises(ModelError, match=r"conv1\.weight more than once"):
        foreign.read(tmp_path / "two.pt")


def test_what_holds_no_state_dict_says_under_which_keys_it_is_looked_for(tmp_path):
    torch.save({"weights": {"conv1.weight": torch.zeros(1)}, "epoch": 1}, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match="no state dict of tensors") as caught:
        foreign.read(tmp_path / "odd.pt")
    assert "state_dict, model_state_dict or model" in caught.value.mend


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "bn1.running_var", "fc.bias"])
def test_weights_that_are_not_finite_are_refused_by_name(state, name, value):
    broken = {**state, name: state[name].clone()}
    broken[name].view(-1)[:2] = value
    with pytest.raises(ModelError, match="not finite") as caught:
        foreign.origin(broken, list("abcdefg"), "weights.pt")
    assert caught.value.problems == [f"{name}: 2 of {state[name].numel()}"]


def test_what_float32_cannot_hold_is_not_finite(state):
    broken = {name: tensor.double() for name, tensor in state.items()}
    broken["conv1.weight"][0] = 1e300
    with pytest.raises(ModelError, match="not finite"):
        foreign.origin(broken, (), "weights.pt")


class Server(ThreadingHTTPServer):
    """Serves one file on the loopback address; breaks off after so many bytes, once for each."""

    daemon_threads = True

    def __init__(self, data: bytes, breaks: list[int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.breaks = data, iter(breaks or [])
        self.ranges, self.refuses = True, iter(())
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{NAME}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"] or ""
        self.server.asked.append(wanted)
        code = next(self.server.refuses, 0)
        if code:
            self.send_error(code)
            return
        data, begin = self.server.data, 0
        if wanted and self.server.ranges:
            begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        most = next(self.server.breaks, None)
        self.wfile.write(data[begin:] if most is None else data[begin : begin + most])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator:
    running = []

    def start(data: bytes, breaks: list[int] | None = None) -> Server:
        server = Server(data, breaks)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """torchvision's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / NAME


def test_torchvision_s_cache_is_where_torch_says(monkeypatch):
    for name, value in (("XDG_CACHE_HOME", "/caches"), ("TORCH_HOME", "~/mine")):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert origin._torch_home() == Path(torch.hub.get_dir()).parent
        monkeypatch.setenv(name, value)
        assert origin._torch_home() == Path(torch.hub.get_dir()).parent


@pytest.mark.parametrize("form", ["a pickle of Parameters", "a zip of tensors"])
def test_the_published_file_is_downloaded_checked_and_made_the_origin(
    published, state, serve, no_cache, form
):
    server, said = serve(published[form].read_bytes()), []
    pin = sha256_file(published[form])
    model = origin.published(server.url, sha256=pin, say=said.append)
    assert server.asked == [""]
    assert (model.classes, model.metadata["made"]) == ((), "imagenet")
    for name, tensor in without_counters(state).items():
        if not name.startswith("fc."):
            assert torch.equal(model.state[name], tensor), name
    assert model.state["bn1.num_batches_tracked"].item() == 0
    (line,) = said
    assert f"{len(server.data) / 1e6:.1f} MB" in line
    assert server.url in line


def test_torchvision_s_own_copy_is_used_without_a_network(published, no_cache):
    source = published["a zip of tensors"]
    no_cache.parent.mkdir(parents=True)
    no_cache.write_bytes(source.read_bytes())
    said = []
    nowhere = f"http://127.0.0.1:9/{NAME}"
    model = origin.published(nowhere, sha256=sha256_file(source), say=said.append)
    assert model.state["conv1.weight"].shape == (64, 3, 7, 7)
    assert said == [f"found in torchvision's cache: {no_cache}"]


def test_another_file_of_that_name_in_the_cache_is_not_used(published, serve, no_cache):
    no_cache.parent.mkdir(parents=True)
    no_cache.write_bytes(b"half a download")
    source, said = published["a zip of tensors"], []
    server = serve(source.read_bytes())
    origin.published(server.url, sha256=sha256_file(source), say=said.append)
    assert server.asked == [""]
    assert "is another file" in said[0]
    assert no_cache.read_bytes() == b"half a download"


DATA = bytes(range(256)) * 4000
QUICK = (0.0, 0.0, 0.0)


def fetch(server: Server, path: Path, *, waits=QUICK, pin: str | None = None) -> list[str]:
    said: list[str] = []
    options = {"what": "the file", "mend": "another way", "say": said.append}
    download.fetch(server.url, path, sha256=pin or sha256(DATA), waits_seconds=waits, **options)
    return said


@pytest.mark.parametrize("breaks", [[0], [1], [300_000, 500_000], [len(DATA) - 1, 0, 0]])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_gone_on_with_or_begun_again(serve, tmp_path, breaks, ranges):
    server = serve(DATA, breaks)
    server.ranges = ranges
    said = fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    held = itertools.accumulate(breaks) if ranges else breaks
    assert server.asked == ["", *(f"bytes={here}-" if here else "" for here in held)]
    assert sum("broke off" in line for line in said) == len(breaks)


def test_tries_are_bounded_and_nothing_is_left(serve, tmp_path):
    server = serve(DATA, [10] * 99)
    with pytest.raises(ModelError, match=r"cannot be downloaded.*4 tries") as caught:
        fetch(server, tmp_path / "file")
    assert caught.value.mend == "another way"
    assert len(server.asked) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_busy_is_asked_again_and_one_that_says_no_is_not(serve, tmp_path):
    server = serve(DATA)
    server.refuses = iter([503, 429])
    fetch(server, tmp_path / "file")
    assert len(server.asked) == 3
    server.refuses = iter([404])
    with pytest.raises(ModelError, match="answers 404"):
        fetch(server, tmp_path / "other")
    assert len(server.asked) == 4


def test_another_file_than_the_expected_one_is_refused_at_once(serve, tmp_path):
    server = serve(b"<html>please log in</html>")
    with pytest.raises(ModelError, match="not the file that it should be"):
        fetch(server, tmp_path / "file")
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_pieces_of_two_files_are_noticed_and_all_of_it_is_fetched_again(serve, tmp_path):
    server = serve(b"another" + DATA[7:], [1000])

    def change(line: str) -> None:
        server.data = DATA

    options = {"sha256": sha256(DATA), "what": "it", "mend": "", "waits_seconds": QUICK}
    download.fetch(server.url, tmp_path / "file", say=change, **options)
    assert (tmp_path / "file").read_bytes() == DATA


def test_where_nobody_answers_it_is_told_at_once(tmp_path):
    server = Server(b"")
    server.server_close()
    with pytest.raises(ModelError, match=r"cannot be downloaded.*refused"):
        fetch(server, tmp_path / "file", waits=(99.0,))
