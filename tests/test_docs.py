"""README.md and docs/ say what the software is today: links, messages, commands, numbers."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from runpy import run_path

import numpy as np
import polars as pl
import pytest
import typer

from builders import DAYS, ROOT, day_metrics
from dayfold.cli import app
from dayfold.figures import intervals, metrics
from dayfold.ledger.tables import Evaluation, schema
from dayfold.project.params import Gate
from pages import PAGES, SPEAKING, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATE = run_path(str(ROOT / "docs" / "generate.py"))
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_a_page_made_of_the_code_is_what_the_code_says_today(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == GENERATE["PAGES"][name](), "make docs"


def test_every_command_that_a_user_types_stands_in_the_readme():
    for name, command in COMMANDS.items():
        if not command.hidden:
            assert f"dayfold {name}" in README, name


def anchors(page: Path) -> set[str]:
    """The headings of a page, as a link names them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_every_page_is_linked_from_the_readme():
    for page in PAGES[1:]:
        assert f"](docs/{page.name}" in README, page.name


@cache
def messages() -> list[str]:
    """All texts of the source; \\0 stands for what is filled in."""
    found = []
    for path in sorted((ROOT / "src" / "dayfold").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.JoinedStr):
                filled = (
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                )
                found.append("".join(map(str, filled)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted() -> list[str]:
    """The messages that troubleshooting.md explains: the first cells of its tables."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return [cell for cell in cells if cell not in ("message", "---")]


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_explained_is_one_that_the_source_has(message):
    assert any(message in text for text in messages())


@pytest.mark.parametrize("page", SPEAKING, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_and_has_its_options(page):
    """Those of sentences; those of blocks are run too, by test_shown.py and test_tutorial.py."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`dayfold ([^`]+)`", text)
    for shown in commands(page):
        spans += re.findall(r"\bdayfold ([^&|;#>]+)", shown.command)
    for span in spans:
        name, *words = span.split()
        if not re.fullmatch("[a-z]+", name):
            continue  # `dayfold --help`, or a placeholder
        assert name in COMMANDS, f"{page.name}: dayfold {name}"
        known = {option for one in COMMANDS[name].params for option in one.opts} | {"--help"}
        for word in words:
            option = word.rstrip(".,;:)")
            assert not option.startswith("--") or option in known, f"{page.name}: {span}"


def test_every_extra_script_and_target_that_a_page_names_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in SPEAKING:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"dayfold\[(\w+)\]", text)) <= set(project["optional-dependencies"])
        for script in re.findall(r"`(benchmarks/[\w.]+)", text):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
        for target in re.findall(r"^make (\w+)|`make (\w+)`", text, re.MULTILINE):
            assert f"\n{''.join(target)}:" in makefile, f"{page.name}: make {target}"


TEXT = Path(ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PLAIN = " ".join(TEXT.split())
MODELS = DAYS[:3]
# The classes that arrive with each cohort: four are tested on the second day, five on the third.
ARRIVED = (("a", "b"), ("c", "d"), ("e",))


def table(title: str) -> list[list[str]]:
    """The rows of the table whose first header is `title`, without the headers."""
    lines = TEXT.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {title} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return rows


def example() -> tuple[np.ndarray, np.ndarray]:
    """Right and all, [3, 3], as the matrix of the example has them; 0 where it has nothing."""
    counts = np.zeros((2, 3, 3))
    for i, (_, *cells) in enumerate(table("model of")):
        for j, cell in enumerate(cells):
            if cell:
                counts[:, i, j] = [int(part) for part in cell.split("/")]
    return counts[0], counts[1]


@pytest.fixture(scope="module")
def days():
    """The figures of the example's days, from counts as `evaluate` would write them."""
    right, images = example()
    rows = []
    for i, model in enumerate(MODELS):
        for j, cohort in enumerate(MODELS):
            if images[i, j]:
                first, last = ARRIVED[j][0], ARRIVED[j][-1]
                hits, misses = int(right[i, j]), int(images[i, j] - right[i, j])
                before = None if i == 0 or j > i else 0
                rows += [(model, cohort, first, first, 9, hits - 1, 0.9, before)]
                rows += [(model, cohort, last, last, 9, 1, 0.9, before)] * (first != last)
                rows += [(model, cohort, first, first, 8, 1, 0.8, before)] * (first == last)
                rows += [(model, cohort, first, "z", 9, misses, 0.9, before)]
    evaluations = pl.DataFrame(rows, schema=schema(Evaluation), orient="row")
    return day_metrics(evaluations, MODELS, dict(zip(MODELS, ARRIVED, strict=True)))


@pytest.fixture(scope="module")
def figures(days):
    return days[MODELS[2]]


def test_the_example_is_what_dayfold_computes(days, figures):
    values = {name: float(value) for name, _, value in table("figure")}
    named = [name for name in values if name in figures]
    assert len(named) == 6
    for name in named:
        assert figures[name] == pytest.approx(values[name], abs=5e-5), name
    mean = np.mean([days[day]["average_accuracy"] for day in MODELS])
    assert mean == pytest.approx(values["anytime_accuracy"], abs=5e-5)
    assert len(values) == 7


def test_what_is_worked_out_by_hand_is_right():
    for name, by_hand, value in table("figure"):
        assert re.fullmatch(r"[\d.()+/ -]+", by_hand)  # numbers alone, so nothing else can run
        assert eval(by_hand) == pytest.approx(float(value), abs=5e-5), name  # noqa: S307


def test_the_intervals_of_the_example_are_what_dayfold_computes(figures):
    found = {name: (float(low), float(high)) for name, low, high in table("interval")}
    assert len(found) == 4
    for name, ends in found.items():
        if name in figures:
            assert tuple(figures["interval"][name].values()) == pytest.approx(ends, abs=5e-5)
    assert found["F1 of 9, 2, 1"] == pytest.approx(tuple(intervals.f1(9, 12)), abs=5e-5)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("18 / 21 = {:.4f}", 2 * 9 / (2 * 9 + 2 + 1)),
        ("With 7 negative flips and 1 positive p is {:.4f}", intervals.mcnemar(7, 1)),
        ("27 of 30: {:.4f} to", intervals.wilson(27, 30).low),
        ("to {:.4f}. - **F1**", intervals.wilson(27, 30).high),
        ("have an F1 of 0 to {:.2f}.", intervals.f1(0, 3).high),
        ("z = {:.2f}.", intervals.Z),
        ("p < {:g},", intervals.SIGNIFICANT),
    ],
)
def test_a_number_in_the_text_is_what_dayfold_computes(said, value):
    assert said.format(value) in PLAIN


def test_the_calibration_error_of_the_text():
    rows = [("a", 9, 10, 9, 0.95), ("a", 5, 5, 2, 0.55)]
    counts = [
        (MODELS[0], MODELS[0], label, said, tenth, count, sure, None)
        for label, tenth, images, right, sure in rows
        for said, count in ((label, right), ("z", images - right))
    ]
    table = pl.DataFrame(counts, schema=schema(Evaluation), orient="row")
    assert f"(0.5 + 0.75) / 15 = {metrics.calibration_error(table)[0]:.4f}" in PLAIN
    draw = np.random.default_rng(0)
    errors = []
    for _ in range(2000):
        sure = draw.uniform(0.5, 1, 20)
        gaps = np.bincount((sure * 10).astype(int), (draw.random(20) < sure) - sure)
        errors.append(np.abs(gaps).sum() / 20)
    assert f"calibrated model has {np.mean(errors):.2f} on average" in PLAIN


def test_every_key_of_metrics_json_is_defined(figures):
    keys = {f"<name>.{key}" for scores in figures["classes"].values() for key in scores}
    for key, value in figures.items():
        if key not in ("classes", "interval"):
            keys |= {f"{key}.{inner}" for inner in value} if isinstance(value, dict) else {key}
    # What `curve` adds.
    keys |= {"new.share", "new.judged", "<name>.judged", "gate.passed", "gate.not_judged"}
    keys |= {f"evidence.{of}" for of in ("all", "earlier", "worst", "new")}
    keys |= {"draws.today", "draws.recency", *metrics.HEADLINE}
    keys |= {f"images.{of}" for of in ("today", "replayed", "trained", "tested")}
    for key in keys:
        assert f"`{key}`" in TEXT, key
    for limit in Gate.model_fields:
        assert f"`gate.{limit}`" in TEXT
    mirrored = {key for key in figures["interval"] if key not in ("classes", "new")}
    assert mirrored < figures.keys()
