"""The first day's weights: every file that torchvision loads, a download that breaks, a cache."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model, resnet18

from builders import a_free_port
from dayfold.errors import ModelError
from dayfold.learning import origin
from dayfold.learning.network import Model, save
from dayfold.learning.novelty import NoveltyDetector
from dayfold.learning.resnet import NETWORKS
from dayfold.project.files import sha256_file

NAME = "published.pth"


def without_counters(state):
    return OrderedDict((name, t) for name, t in state.items() if "num_batches_tracked" not in name)


def as_parameters(state):
    """As files of 2016 have them: what is trained as a Parameter, statistics as plain tensors."""
    return OrderedDict(
        (name, tensor if "running" in name else torch.nn.Parameter(tensor))
        for name, tensor in state.items()
    )


def state_of(name):
    torch.manual_seed(0)
    return get_model(name, weights=None, num_classes=7).state_dict()


@pytest.fixture(scope="module")
def state():
    return state_of("resnet18")


def publish(path: Path, state, form: str = "a zip of tensors") -> Path:
    """Write a file in one of the forms in which torchvision has published its own."""
    if form == "a zip of tensors":
        torch.save(without_counters(state), path)
    else:
        pickled = as_parameters(without_counters(state))
        torch.save(pickled, path, _use_new_zipfile_serialization=False)
    return path


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
    ours = origin.of_state(origin.read(path), list("abcdefg"), "weights")
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
        ("state_dict", "model.backbone."),
        ("model", "_orig_mod."),
        ("net", "0.encoder."),
    ],
)
def test_a_key_around_it_and_prefixes_are_taken_off(tmp_path, state, key, prefix):
    named = {prefix + name: tensor for name, tensor in without_counters(state).items()}
    whole = {key: named, "epoch": 3, "optimizer": {"state": {}}} if key else named
    torch.save(whole, tmp_path / "weights.pt")
    model = origin.of_state(origin.read(tmp_path / "weights.pt"), (), "weights")
    assert torch.equal(model.state["conv1.weight"], state["conv1.weight"])
    assert model.state["fc.weight"].shape == (0, 512)


def test_what_lies_beside_a_wrapped_network_is_left_out_and_said(tmp_path, state, capsys):
    named = {f"model.{name}": tensor for name, tensor in without_counters(state).items()}
    whole = {
        "hyper_parameters": {"rate": 0.1},
        "state_dict": {**named, "loss.weight": state["fc.bias"]},
    }
    torch.save(whole, tmp_path / "last.ckpt")
    read = origin.read(tmp_path / "last.ckpt")
    assert read.keys() == without_counters(state).keys()
    said = "left out of last.ckpt: 1 tensor beside the network, loss.weight\n"
    assert capsys.readouterr().out == said


def test_a_head_of_several_layers_is_dropped_and_never_guessed(tmp_path, state):
    other = {name.replace("fc.", "fc.1."): tensor for name, tensor in state.items()}
    assert origin.of_state(other, (), "weights").state["fc.weight"].shape == (0, 512)
    with pytest.raises(ModelError, match="with 7 classes") as caught:
        origin.of_state(other, list("abcdefg"), "weights")
    assert "without --classes" in caught.value.hint


def test_the_content_of_a_file_decides_and_not_its_name(tmp_path, state):
    save_file(state, tmp_path / "weights.pth")
    torch.save(state, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        assert origin.read(tmp_path / name).keys() == state.keys()


@pytest.mark.parametrize(
    "odd", [torch.Tensor.to_sparse, lambda t: t.to("meta"), lambda t: t.to(torch.complex64)]
)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, state, odd):
    torch.save({**state, "fc.weight": odd(state["fc.weight"])}, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match="holds no state dict of tensors"):
        origin.read(tmp_path / "odd.pt")


def test_weights_that_make_nan_of_an_image_are_refused(state):
    broken = {**state, "bn1.running_var": -1 - state["bn1.running_var"]}
    with pytest.raises(ModelError, match="gives NaN or infinite numbers for an image"):
        origin.of_state(broken, list("abcdefg"), "weights.pt")


def test_a_model_of_dayfold_s_is_taken_without_what_it_knows_of_its_images(tmp_path, state):
    path = tmp_path / "model.safetensors"
    save(path, state, {}, NoveltyDetector(torch.zeros(512), torch.zeros(7, 512), torch.ones(3)))
    read = origin.read(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer1.0.conv1.weight", float("nan")),
        ("bn1.running_var", float("inf")),
        ("fc.bias", float("-inf")),
        ("conv1.weight", 1e300),  # more than float32 can hold
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(state, name, value):
    broken = {**state, name: state[name].double()}
    broken[name].view(-1)[:2] = value
    with pytest.raises(ModelError, match="not finite") as caught:
        origin.of_state(broken, list("abcdefg"), "weights.pt")
    assert caught.value.problems == [f"{name}: 2 of {state[name].numel()}"]


def test_a_state_dict_that_does_not_fit_is_refused_with_every_tensor(tmp_path):
    path = tmp_path / "odd.pth"
    state = resnet18(weights=None).state_dict()
    torch.save({**state, **{f"module.{n}": t for n, t in state.items()}}, path)
    with pytest.raises(ModelError, match=r"conv1\.weight more than once"):
        origin.read(path)
    torch.save({"weights": {"conv1.weight": torch.zeros(1)}, "epoch": 1}, path)
    with pytest.raises(ModelError, match="no state dict of tensors") as caught:
        origin.read(path)
    assert "state_dict, model_state_dict or model" in caught.value.hint
    del state["bn1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save({"state_dict": state}, path)
    with pytest.raises(ModelError) as caught:
        origin.make(str(path), network="resnet18", seed=0, classes=["one"])
    for name in ("bn1.weight", "layer9.weight", "conv1.weight", "fc.weight"):
        assert any(name in problem for problem in caught.value.problems)


@pytest.mark.parametrize(("holds", "asked"), [("resnet34", "resnet18"), ("resnet50", "resnet34")])
def test_a_file_of_another_network_is_refused_by_the_name_of_its_own(tmp_path, holds, asked):
    wrapped = {f"module.{name}": t for name, t in without_counters(state_of(holds)).items()}
    torch.save(wrapped, tmp_path / "team.pt")
    said = f"team.pt holds the weights of {holds}, not of {asked}"
    with pytest.raises(ModelError, match=said) as caught:
        origin.make(str(tmp_path / "team.pt"), network=asked, seed=0, classes=())
    assert f"--network {holds} " in caught.value.hint
    model = origin.make(str(tmp_path / "team.pt"), network=holds, seed=0, classes=list("abcdefg"))
    assert (model.network, len(model.state["fc.weight"])) == (holds, 7)
    with torch.device("meta"):  # one that has no name here
        other = get_model("resnet101").state_dict()
    with pytest.raises(ModelError, match=f"does not hold the weights of torchvision's {asked}:"):
        origin.of_state(other, (), "team.pt", asked)


def test_a_pickle_with_code_is_never_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv1.weight": Code()}, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match="holds no plain tensors"):
        origin.make(str(tmp_path / "bad.pt"), network="resnet18", seed=0, classes=())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.safetensors"])
def test_any_damage_of_a_foreign_model_is_told(tmp_path, name):
    whole = tmp_path / "whole.pt"
    torch.save({"conv1.weight": torch.zeros(4)}, whole)
    data, draw = whole.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"\x80\x02\x8a\n", *(data[: len(data) * part // 8] for part in range(1, 8))]
    for _ in range(40):
        mutated = bytearray(data)
        for at in draw.integers(0, len(data), 8):
            mutated[at] = draw.integers(256)
        damaged.append(bytes(mutated))
    refused = 0
    for part in damaged:
        (tmp_path / name).write_bytes(part)
        try:
            origin.read(tmp_path / name)
        except ModelError:
            refused += 1
    assert refused > len(damaged) / 2


class Handler(BaseHTTPRequestHandler):
    """Serves one file; breaks off or refuses, as its server is told, by turns."""

    def do_GET(self) -> None:
        self.server.asked += 1
        if code := next(self.server.refuses, 0):
            self.send_error(code)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data[: next(self.server.breaks, None)])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch) -> Iterator:
    running = []

    def start(
        data: bytes, breaks: Sequence[int] = (), refuses: Sequence[int] = ()
    ) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.data, server.breaks, server.refuses = data, iter(breaks), iter(refuses)
        server.url, server.asked = f"http://127.0.0.1:{server.server_port}/{NAME}", 0
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return server

    monkeypatch.setattr(origin, "WAITS_SECONDS", (0.0, 0.0, 0.0))
    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The file in torchvision's cache, which is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    path.parent.mkdir(parents=True)
    return path


def test_torchvision_s_cache_is_where_torch_says(monkeypatch):
    for name, value in (("XDG_CACHE_HOME", "/caches"), ("TORCH_HOME", "~/mine")):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert origin.torch_home() == Path(torch.hub.get_dir()).parent
        monkeypatch.setenv(name, value)
        assert origin.torch_home() == Path(torch.hub.get_dir()).parent


def fetched(monkeypatch, url: str, sha256: str, *, network: str = "resnet18") -> Model:
    """The ImageNet origin, as if the network's file were published at this place."""
    kind = NETWORKS[network]._replace(url=url, sha256=sha256)
    monkeypatch.setitem(NETWORKS, network, kind)
    return origin.make("imagenet", network=network, seed=0, classes=())


@pytest.mark.parametrize(
    ("network", "form"),
    [("resnet18", "a pickle of Parameters"), *((name, "a zip of tensors") for name in NETWORKS)],
)
def test_the_published_file_is_downloaded_checked_and_made_the_origin(
    tmp_path, monkeypatch, serve, cached, network, form, capsys
):
    cached.write_bytes(b"half a download")  # which is not used
    state = state_of(network)
    path = publish(tmp_path / "file", state, form)
    server = serve(path.read_bytes(), breaks=[0, 300_000])
    pin = sha256_file(path)
    model = fetched(monkeypatch, server.url, pin, network=network)
    said = capsys.readouterr().out.splitlines()
    assert (model.classes, model.metadata["made"]) == ((), "imagenet")
    assert model.network == network
    for name, tensor in without_counters(state).items():
        if not name.startswith("fc."):
            assert torch.equal(model.state[name], tensor), name
    assert model.state["fc.weight"].shape == (0, state["fc.weight"].shape[1])
    assert model.state["bn1.num_batches_tracked"].item() == 0
    assert "differs from the published file" in said[0]
    assert cached.read_bytes() == b"half a download"
    assert server.asked == 3
    assert sum("broke off" in line for line in said) == 2
    assert f"{len(server.data) / 1e6:.1f} MB, from {server.url}" in said[-1]


def test_torchvision_s_own_copy_is_used_without_a_network(state, cached, monkeypatch, capsys):
    pin = sha256_file(publish(cached, state))
    nowhere = f"http://127.0.0.1:9/{NAME}"
    model = fetched(monkeypatch, nowhere, pin)
    assert model.state["conv1.weight"].shape == (64, 3, 7, 7)
    assert capsys.readouterr().out == f"found in torchvision's cache: {cached}\n"


def test_tries_are_bounded_and_only_what_may_pass_is_tried_again(serve, cached, monkeypatch):
    def refused(url):
        with pytest.raises(ModelError) as caught:
            fetched(monkeypatch, url, "0" * 64)
        return caught.value

    server = serve(b"0123456789", breaks=[9] * 99)
    assert re.search(r"cannot be downloaded.*4 tries", refused(server.url).what)
    assert server.asked == 4
    assert "--weights FILE" in refused(server.url).hint
    busy = serve(b"<html>please log in</html>", refuses=[503, 429])
    assert "not the file that it should be" in refused(busy.url).what
    assert busy.asked == 3
    denied = serve(b"", refuses=[404])
    assert "answers 404" in refused(denied.url).what
    assert denied.asked == 1
    nobody = f"http://127.0.0.1:{a_free_port()}/{NAME}"
    assert re.search(r"cannot be downloaded.*refused\)", refused(nobody).what)  # at once
