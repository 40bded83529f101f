"""The network: a head that only grows, one form on disk, origins from anywhere."""

import json
import re
from typing import get_args

import pytest
import torch
from torch.nn import functional
from torchvision.models import get_model, get_model_weights

from builders import DAYS, TINY, make_project, make_trainable, open_day, place, run_stages, take_in
from dayfold import create
from dayfold.errors import ModelError
from dayfold.figures import gate, log
from dayfold.learning import device, network
from dayfold.learning.network import HEAD, Model
from dayfold.learning.resnet import NETWORKS, blank, network_of
from dayfold.ledger import manifest
from dayfold.project import params as params_file
from dayfold.project.files import sha256_file
from dayfold.project.layout import Project
from dayfold.project.params import NETWORK, Network
from dayfold.stages import curve, evaluate, replay, snapshot, train, weights

CPU = device.Machine("cpu", "fp32", 1)


def trained_on(classes: tuple[str, ...], name: str = NETWORK) -> Model:
    return network.grown(network.random_origin(0, name), classes, seed=0)


def images(count: int) -> torch.Tensor:
    values = torch.arange(count * 3 * 32 * 32) * 7919 % 256
    return values.to(torch.uint8).reshape(count, 3, 32, 32)


def test_known_classes_keep_ids_and_rows_when_the_head_grows_and_a_renamed_one_its_old_row():
    before = trained_on(("cyst", "healthy"))
    before.state["fc.bias"][0] = 0.25
    after = network.grown(before, ["fibrosis", "tumour"], seed=0, like={"tumour": "cyst"})
    assert after.classes == ("cyst", "healthy", "fibrosis", "tumour")
    for name in HEAD:
        assert torch.equal(after.state[name][:2], before.state[name])
        assert torch.equal(after.state[name][3], before.state[name][0])
    assert after.state["fc.weight"].shape == (4, 512)
    other = network.grown(before, ["tumour"], seed=0, like={"tumour": "not in the head"})
    anew = trained_on(("cyst", "healthy", "tumour"))
    assert torch.equal(other.state["fc.weight"], anew.state["fc.weight"])


def test_a_new_row_depends_on_the_name_and_not_on_the_company():
    alone = network.grown(network.random_origin(0), ["fibrosis"], seed=0)
    last = network.grown(trained_on(("a", "b")), ["c", "fibrosis"], seed=0)
    assert torch.equal(alone.state["fc.weight"][0], last.state["fc.weight"][3])
    assert not torch.equal(last.state["fc.weight"][2], last.state["fc.weight"][3])
    other_seed = network.grown(network.random_origin(0), ["fibrosis"], seed=1)
    assert not torch.equal(alone.state["fc.weight"], other_seed.state["fc.weight"])


def test_new_rows_and_random_kernels_are_spread_as_torch_and_he_et_al_say():
    row = trained_on(("fibrosis",)).state["fc.weight"][0]
    bound = 512**-0.5
    assert row.abs().max() <= bound
    # U(-b, b) has the standard deviation b / sqrt(3).
    assert row.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    # And a random origin's kernels as He et al. say.
    state = network.random_origin(seed=3).state
    kernel = state["layer1.0.conv1.weight"]
    assert kernel.std().item() == pytest.approx((2 / (64 * 3 * 3)) ** 0.5, rel=0.02)
    assert torch.equal(state["bn1.weight"], torch.ones(64))


def test_a_model_saved_and_loaded_gives_the_same_logits_to_the_bit(tmp_path):
    model = trained_on(("a", "b", "c"))
    net = network.build(model, 32)
    before = network.outputs(net, images(5), CPU, batch_size=2)
    state = network.state_of(net, model, 32)
    network.save(tmp_path / "m.safetensors", state, {"classes": ["a", "b", "c"]})
    again = network.load(tmp_path / "m.safetensors")
    after = network.outputs(network.build(again, 32), images(5), CPU, batch_size=2)
    assert again.classes == ("a", "b", "c")
    assert torch.equal(before, after)


def learn(net: torch.nn.Module, size: int) -> torch.Tensor:
    """Logits of two images, float32 [2, classes], and the gradients of one update."""
    batch = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = net.train()(batch.to(memory_format=torch.channels_last))
    functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    return logits.detach()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [32, 224])
def test_logits_gradients_and_statistics_are_torchvision_s_to_the_bit(name, size):
    theirs = get_model(name, weights=None, num_classes=2).to(memory_format=torch.channels_last)
    mine = blank(name, 2)
    copies = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    mine.load_state_dict(copies, strict=True, assign=True)
    assert torch.equal(learn(mine, size), learn(theirs, size))
    for ours, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours.grad, other.grad)
    after = theirs.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in mine.state_dict().items())


def test_the_published_files_are_torchvision_s_and_params_knows_every_network():
    assert tuple(NETWORKS) == get_args(Network)
    for name, kind in NETWORKS.items():
        assert kind.url == get_model_weights(name).IMAGENET1K_V1.url
        assert re.fullmatch(r"[0-9a-f]{64}", kind.sha256)
        # Its file's name has the first digits, by which torch.hub checks it.
        assert kind.url.endswith(f"/{name}-{kind.sha256[:8]}.pth")


@pytest.mark.parametrize(
    ("size", "name"),
    [*((size, "resnet18") for size in (16, 32, 48, 64)), (32, "resnet34"), (16, "resnet50")],
)
def test_the_network_is_torchvision_s_at_every_size(size, name):
    model = trained_on(("a", "b"), name)
    whole = get_model(name, weights=None, num_classes=2).eval()
    whole.load_state_dict(model.state)
    net = network.build(model, size).eval()
    batch = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(net(batch), whole(batch), atol=1e-4)
    back = network.state_of(net, model, size)
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state.items()
    }
    assert all(torch.equal(back[name], model.state[name]) for name in back)


def test_taps_that_see_padding_only_are_left_out_where_a_map_is_one_pixel():
    # At 32 px the last stage's maps are 1 x 1: of its 3 x 3 kernels the middle tap sees them, and
    # of the first, on 2 x 2 with stride 2 and one pixel of padding, 2 x 2 taps.
    net = network.build(trained_on(("a",)), 32)
    assert net.layer4[0].conv1.weight.shape == (512, 256, 2, 2)
    assert net.layer4[0].conv2.weight.shape == (512, 512, 1, 1)
    assert net.layer3[1].conv2.weight.shape == (256, 256, 3, 3)


def test_a_saved_model_is_the_same_bytes_whatever_the_order_with_one_key_of_metadata(tmp_path):
    state = trained_on(("a",)).state
    metadata = {"classes": ["a"], "day": "2025-06-02"}
    network.save(tmp_path / "one", state, metadata)
    network.save(tmp_path / "two", dict(reversed(state.items())), dict(reversed(metadata.items())))
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {"dayfold": '{"classes":["a"],"day":"2025-06-02"}'}


# Measured once; all arithmetic behind it is exact, so no machine may differ.
ORIGIN_SHA256 = "a8a0e24147a0d46db746c9f3bebe98fad78635a5271b07b733fe8242e64160f7"


def test_the_random_origin_is_the_same_bytes_everywhere(tmp_path):
    model = network.random_origin(seed=0)
    network.save(tmp_path / "m", model.state, model.metadata)
    assert sha256_file(tmp_path / "m") == ORIGIN_SHA256
    assert network.load(tmp_path / "m").classes == ()


def test_a_file_says_which_network_it_is_and_without_a_word_is_resnet18(tmp_path):
    for name in NETWORKS:
        model = trained_on(("a",), name)
        network.save(tmp_path / name, model.state, model.metadata | {"classes": ["a"]})
        again = network.load(tmp_path / name)
        assert again.network == network_of(again.state) == name
        assert ("network" in again.metadata) == (name != "resnet18")
        wide = 2048 if name == "resnet50" else 512
        assert again.state["fc.weight"].shape == (1, wide)
        assert again.state["fc.weight"].abs().max() <= wide**-0.5


def test_a_file_that_is_no_model_of_ours_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"not a model at all")
    with pytest.raises(ModelError, match="is not a dayfold model"):
        network.load(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="gone is not here yet"):
        network.load(tmp_path / "gone")


def test_retired_classes_are_never_predicted_and_keep_their_rows():
    whole = trained_on(("a", "b", "c", "d"))
    left = network.drop_classes(whole, {"a", "c"})
    assert left.classes == ("b", "d")
    assert torch.equal(left.state["fc.weight"], whole.state["fc.weight"][[1, 3]])
    state = {**left.state, "fc.weight": left.state["fc.weight"] + 1}
    state = network.restore_classes(state, whole, {"a", "c"})
    assert torch.equal(state["fc.weight"][[0, 2]], whole.state["fc.weight"][[0, 2]])
    assert torch.equal(state["fc.weight"][[1, 3]], whole.state["fc.weight"][[1, 3]] + 1)
    asked = network.build(Model(state, whole.classes, {}), 32)
    for precision in ("fp32", "bf16"):
        machine = device.Machine("cpu", precision, 1)
        chances = network.outputs(asked, images(4), machine, batch_size=4).softmax(1)
        assert chances[:, [0, 2]].tolist() == [[0.0, 0.0]] * 4
        assert torch.allclose(chances.sum(1), torch.ones(4))
    # One that comes back is known by its old row.
    again = network.grown(Model(state, whole.classes, {}), (), seed=0)
    assert again.state["fc.bias"].tolist() == [0.0] * 4
    assert network.drop_classes(whole, set()) is whole


def test_a_class_that_has_its_old_name_again_goes_on_with_the_row_of_the_other():
    whole = trained_on(("a", "b", "c"))
    whole.state["fc.bias"][1] = 0.5
    state = network.restore_classes(network.drop_classes(whole, {"a"}).state, whole, {"a"})
    back = network.grown(Model(state, whole.classes, {}), (), seed=0, like={"a": "b"})
    for name in HEAD:
        assert torch.equal(back.state[name][0], whole.state[name][1])
        assert torch.equal(back.state[name][1:], whole.state[name][1:])


HARDLY = {"train__learning_rate": 1e-7, "replay__size": 0, "gate__min_new_f1": 0.5}
CAT, DOG, EEL = range(20), range(20, 40), range(40, 60)


def inherit(project: Project) -> None:
    project.parent_model.write_bytes(project.model.read_bytes())
    project.parent_predictions.write_bytes(project.predictions.read_bytes())


@pytest.fixture
def begun(tmp_path) -> Project:
    """A day of cats and dogs, trained."""
    project = make_trainable(tmp_path / "project", **HARDLY)
    take_in(project, DAYS[0], {"cat": CAT, "dog": DOG})
    run_stages(project, weights, replay, train, evaluate)
    inherit(project)
    return project


def rename(project: Project, day: str, old: str, new: str) -> None:
    """Give all images of a class another name on a day that brings eels only."""
    known = manifest.history(project, params_file.read(project.params).day)
    open_day(project, day)
    images = known.images.filter(label=old)["image"]
    with project.corrections(day).open("a") as file:
        file.writelines(f"relabel,{image},{new},\n" for image in images)
    place(project.images(day), "eel", EEL if day == DAYS[1] else range(60, 70))
    run_stages(project, snapshot, weights, replay, train, evaluate)


def row(model: network.Model, name: str) -> torch.Tensor:
    return model.state["fc.weight"][model.classes.index(name)]


def test_a_renamed_class_keeps_its_row_though_no_image_of_it_is_in_the_pool(begun):
    before = network.load(begun.model)
    rename(begun, DAYS[1], "cat", "lynx")
    after = network.load(begun.model)
    assert after.live == ("dog", "eel", "lynx")
    assert after.retired == ("cat",)
    assert torch.allclose(row(after, "lynx"), row(before, "cat"), atol=1e-5)
    inherit(begun)
    # And under its old name again: that row goes on where the other one was.
    rename(begun, DAYS[2], "lynx", "cat")
    again = network.load(begun.model)
    assert again.live == ("cat", "dog", "eel")
    assert torch.allclose(row(again, "cat"), row(after, "lynx"), atol=1e-5)


def test_what_is_new_is_what_the_ledger_saw_first_whatever_the_origin_knew(tmp_path):
    project = make_project(tmp_path / "project", **TINY, **HARDLY)
    team = network.grown(network.random_origin(1), ["cat", "dog"], seed=1)
    torch.save(team.state, tmp_path / "team.pt")
    origin = {"origin.weights": str(tmp_path / "team.pt"), "origin.classes": ["cat", "dog"]}
    params_file.edit(project.params, origin)
    create.make_origin(project, params_file.read(project.params))
    take_in(project, DAYS[0], {"cat": CAT, "eel": EEL})
    run_stages(project, weights, replay, train, evaluate, curve)
    figures = json.loads(project.metrics.read_bytes())
    (line,) = log.lines(project, params_file.read(project.params))
    made = json.loads(project.provenance.read_bytes())
    assert line.new == tuple(made["new_classes"]) == ("cat", "eel")
    for name in ("f1", "confidence"):
        assert figures["new"][name] == line.figures["new"][name] is not None
    assert figures["new"]["share"] == 1.0
    checked = [check.label for check in gate.read(project, DAYS[0]) if check.limit == "min_new_f1"]
    assert checked == ["cat", "eel"]
    # The origin's row of the class that is new here was kept, not drawn anew.
    assert torch.allclose(row(network.load(project.model), "cat"), row(team, "cat"), atol=1e-5)
