"""The house: which room may use which, and what may stand in none of them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from builders import ROOT
from dayfold.cli import app

HOME = ROOT / "src" / "dayfold"
# From top to bottom; a room uses those below it. Rooms of one storey do not know each other.
STOREYS = (
    ("__main__",),
    ("cli",),
    ("demo",),
    ("backtest", "serve"),
    ("cycle",),
    ("create",),
    ("stages", "proof"),
    ("history",),
    ("figures", "learning"),
    ("ledger",),
    ("project",),
    ("draws", "errors"),
)
FRONT_DOOR = {"dayfold.serve.model"}  # what `dayfold.load` opens, and nothing else
STOREY = {room: floor for floor, rooms in enumerate(STOREYS) for room in rooms}
HEAVY = ("torch", "torchvision", "safetensors.torch")
# The only ones that import torch themselves.
TRAINS = ("dayfold.learning", "dayfold.stages.train", "dayfold.stages.evaluate", "dayfold.serve")
TIDY = ("learning", "stages", "draws")  # rooms whose functions are short
COMMANDS = sorted(typer.main.get_command(app).commands)


def name_of(path: Path) -> str:
    parts = path.relative_to(HOME.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(HOME.rglob("*.py"))}
TREES = {name: ast.parse(path.read_bytes()) for name, path in MODULES.items()}


def imports(tree: ast.AST) -> set[str]:
    """Every module that a tree imports, within functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                whole = name in MODULES or name.startswith(HEAVY)
                found.add(name if whole else str(node.module))
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)


def test_every_room_has_its_storey():
    assert {room(name) for name in MODULES} - {""} <= set(STOREY)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    above = []
    for other in imports(TREES[module]) & set(MODULES):
        mine, its = room(module), room(other)
        if not mine and other in FRONT_DOOR:
            continue
        if its and its != mine and (not mine or STOREY[its] <= STOREY[mine]):
            above.append(other)
    assert above == []


def test_stages_meet_in_files_and_are_called_by_name_only():
    stages = {name for name in MODULES if room(name) == "stages"}
    for name in stages:
        assert imports(TREES[name]) & stages == set()


def test_only_what_trains_or_predicts_imports_torch():
    users = {name for name, tree in TREES.items() if any(within(x, HEAVY) for x in imports(tree))}
    assert users
    assert {name for name in users if not within(name, TRAINS)} == set()


HELP = """
from dayfold.cli import app
for words in (["--help"], ["--version"], ["train", "--help"], ["predict", "--help"]):
    try:
        app(words)
    except SystemExit as done:
        assert not done.code
"""
STAGES = """
from dayfold import create
from dayfold.stages import curve, replay, snapshot, weights
from dayfold.cycle import adding, opening, sealing, unattended
"""
TRAINING = """
import torch
from dayfold.learning import device, network
device.resolve(device="cpu", precision="fp32", threads=1)
model = network.grown(network.random_origin(0), ["a", "b"], seed=0)
network.build(model, 32)(torch.zeros(2, 3, 32, 32)).sum().backward()
"""


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import dayfold", "torch numpy polars dvc"),
        (HELP, "torch torchvision polars sklearn PIL numpy dvc"),
        (STAGES, "torch torchvision sklearn dvc"),
        ("from dayfold.figures.report import page", "torch torchvision sklearn dvc"),
        (TRAINING, "torch._dynamo torch._inductor"),
    ],
)
def test_what_must_be_quick_imports_nothing_heavy(code, heavy):
    code += f"\nimport sys\nprint(sorted({{*{heavy.split()}}} & {{*sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert done.stdout or not code.startswith(HELP)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    found = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert found.exit_code == 0
    described = typer.main.get_command(app).commands[command]
    # The example of a hidden command is what a person types instead.
    assert re.search(rf"Example: +\S.*\b{'' if described.hidden else command}\b", found.output)
    assert described.help
    for parameter in described.params:
        if isinstance(parameter, typer.core.TyperOption) and not described.hidden:
            assert parameter.help


def test_every_stage_of_dvc_yaml_is_a_command_and_a_file():
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    stages = re.findall(r"^    cmd: (.*)$", text, re.MULTILINE)
    assert stages == [f"dayfold {name}" for name in re.findall(r"^  (\w+):$", text, re.MULTILINE)]
    for stage in stages:
        name = stage.removeprefix("dayfold ")
        assert name in COMMANDS
        assert f"dayfold.stages.{name}" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_long_or_a_drawer_for_anything(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400
    assert MODULES[module].stem not in ("utils", "util", "helpers", "common", "misc")
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("module", [one for one in MODULES if room(one) in TIDY])
def test_no_function_is_long_or_takes_many_things(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            own = [one.arg for one in given if one.arg not in ("self", "cls")]
            assert len(own) <= 8, node.name
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def calls(tree: ast.AST) -> list[tuple[str, dict[str, ast.expr]]]:
    """Every call as (its dotted name, its keywords)."""
    return [
        (ast.unparse(node.func), {str(word.arg): word.value for word in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_runs_code_out_of_data(module):
    for name, keywords in calls(TREES[module]):
        assert name not in ("eval", "exec", "compile", "os.system", "os.popen", "__import__")
        assert not re.fullmatch(r"(pickle|cloudpickle|joblib|marshal|dill)\.\w+", name), name
        assert not name.startswith("torch.hub")
        if name == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True"
        if name in ("numpy.load", "np.load"):
            assert ast.unparse(keywords.get("allow_pickle", ast.Constant(False))) == "False"
        assert not re.search(r"\b(unsafe|full)_load(_all)?$|^yaml\.load_all", name), name
        assert not re.search(r"^os\.(spawn|exec)|^subprocess\.get", name), name
        if name == "yaml.load":
            assert ast.unparse(keywords["Loader"]) in ("yaml.CSafeLoader", "yaml.SafeLoader")
        if "shell" in keywords:
            assert ast.unparse(keywords["shell"]) == "False"
        if name.endswith("Image.open"):  # Pillow knows some forty formats, and old ones have holes
            assert ast.unparse(keywords["formats"]) == "FORMATS"
        if name.endswith("Environment"):  # of Jinja
            assert ast.unparse(keywords["autoescape"]) == "True"


def test_ctrl_c_while_the_command_line_is_imported_ends_it_with_a_line():
    code = (
        "import os, signal, sys\n"
        "from dayfold.__main__ import main\n"
        "assert 'typer' not in sys.modules\n"
        "class Watch:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'typer':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "dayfold: interrupted\n")
