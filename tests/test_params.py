"""params.yaml is checked whole: every problem at once, with its line and what was meant."""

import re

import pytest
import yaml
from pydantic import BaseModel

from builders import ROOT
from dayfold import __version__
from dayfold.errors import ParamsError
from dayfold.project import journal, template, vcs
from dayfold.project import params as params_file
from dayfold.project.files import dotted
from dayfold.project.params import Params
from dayfold.proof import check

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.yaml"


def line_of(key):
    """The line, from 1, of a key with its indent: "  updates"."""
    (found,) = [at for at, line in enumerate(TEXT.splitlines(), 1) if line.startswith(f"{key}:")]
    return found


def changed(path, *changes):
    """Write the root's params.yaml with the lines of some keys changed."""
    lines = TEXT.splitlines(keepends=True)
    for key, line in changes:
        lines[line_of(key) - 1] = f"{line}\n"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def problems(path, *changes):
    with pytest.raises(ParamsError) as caught:
        params_file.read(changed(path, *changes))
    return caught.value.problems


def keys_of(model, prefix=""):
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_root_s_params_are_valid_unopened_few_in_order_and_have_a_comment_each(path):
    params = params_file.read(ROOT / "params.yaml")
    assert (params.day, params.parent) == ("none", "origin")
    recency = params.weights
    assert (recency.recent, recency.base, recency.versions) == (3.0, 1.0, 5)
    assert recency.class_balance == 1.0
    assert params.data.split.fractions() == {"train": 0.7, "validation": 0.1, "test": 0.2}
    keys = list(dotted(yaml.safe_load(TEXT)))
    assert keys == list(keys_of(Params))
    assert len(keys) <= 43  # that a person has to look at
    lines = [line for line in TEXT.splitlines() if re.match(r"\s*\w+:", line)]
    assert [line for line in lines if not re.search(r"#\s*\S+", line)] == []
    # Keys that are gone, as sealed days have them, are passed over.
    with_gone = (
        ("  group", '  group: ""\n  max_pixels: 50000000'),
        ("seed", "seed: 0\nreport:\n  heat: true"),
    )
    changed(path, *with_gone)
    assert params_file.read(path) == params


def test_every_problem_is_listed_at_once_with_its_line(path):
    wrong = ("seed: -1", "  recent: 0", "  updates: 6.5", "  device: gpu")
    changed(path, *((line.partition(":")[0], line) for line in wrong), ("  size", "  sise: 300"))
    with pytest.raises(ParamsError, match=r"params\.yaml has 6 problems:") as caught:
        params_file.read(path)
    assert caught.value.hint.startswith("edit params.yaml")
    assert set(caught.value.problems) == {
        f"params.yaml:{line_of(key)}: {said}"
        for key, said in (
            ("seed", "seed is -1: input should be greater than or equal to 0"),
            ("  recent", "weights.recent is 0: input should be greater than 0"),
            ("replay", "replay.size is missing"),
            ("  size", "replay.sise is not a known key; known here: policy, size"),
            ("  updates", "train.updates is 6.5: input should be a valid integer"),
            ("  device", "train.device is 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        )
    }


@pytest.mark.parametrize(
    ("key", "line", "words"),
    [
        ("  max_forgetting", "  max_forgetting: 5", "is 5: input should be less than or equal"),
        ("    flip", "    flip: true", "train.augment.flip is True: input should be a valid"),
        ("  base", "  base: .inf", "weights.base is inf: input should be a finite number"),
        ("  policy", "  policy: class_balance", "should be 'class_balanced', "),
        ("  classes", "  classes: [yes]", "origin.classes.0 is True: input should be a valid"),
        ("    test", "    test: 0.9", "validation + test must be below 1, not 1"),
        ("  group", '  group: "p("', "not a regular expression"),
        (
            "  group",
            '  group: "p"',
            "is 'p': needs exactly one (…), around the patient's id, and has 0",
        ),
        ("day", 'day: "2025-6-4"', "'2025-6-4' is not a day"),
        ("  recent", "  recents: 1.0", "weights.recents is not a known key; known here: recent, "),
        ("seed", "xyz: 1\nseed: 0", "xyz is not a known key; known here: dayfold, day, "),
        ("  learning_rate", "  learning_rate: 1e-3", "train.learning_rate is '1e-3'"),
        ("day", "day: 2025-06-04", 'day is read by YAML as a date; quote it: "2025-06-04"'),
        ("seed", "seed: 0\nseed: 0", "seed appears twice"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(path, key, line, words):
    (problem,) = [found for found in problems(path, (key, line)) if words in found]
    number = int(re.match(r"params\.yaml:(\d+): ", problem)[1])
    # A sum is named with the line of its section.
    named = "  split:" if key == "    test" else line.splitlines()[0]
    assert path.read_text(encoding="utf-8").splitlines()[number - 1].startswith(named)


def test_a_file_that_holds_no_keys_or_is_not_utf_8_is_refused(path):
    for data, words in (
        (b"", "params.yaml holds no keys"),
        (b"- a list\n", "params.yaml holds no keys"),
        (b"day: [\n", "params.yaml is not YAML"),
        (b"day:\t1: 2\n", "params.yaml is not YAML"),
        (TEXT.encode("utf-16"), "params.yaml is not"),
    ):
        path.write_bytes(data)
        with pytest.raises(ParamsError, match=re.escape(words)):
            params_file.read(path)


def test_a_parent_comes_before_its_day_and_the_origin_is_no_day(path):
    days = (("2025-06-04", "2025-06-04"), ("origin", "origin"), ("2025-06-04", "none"))
    for day, parent in days:
        (problem,) = problems(path, ("day", f'day: "{day}"'), ("parent", f'parent: "{parent}"'))
        assert "is not" in problem


def test_a_backslash_between_double_quotes_is_told_with_its_line_and_how_to_write_it(path):
    number = line_of("  group")
    with pytest.raises(ParamsError, match=f"line {number}: found unknown escape") as caught:
        params_file.read(changed(path, ("  group", r'  group: "patient(\d+)"  # the patient')))
    assert caught.value.hint.endswith("use single quotes")
    (problem,) = problems(path, ("  group", r'  group: "\bP(x)"'))  # to YAML a backspace
    assert problem.startswith(f"params.yaml:{number}: data.group")
    assert "use single quotes" in problem


def test_another_version_is_refused_with_the_ways_out_whatever_keys_it_knows(path):
    said = f"pinned to dayfold 9.8.7, installed is {__version__}"
    with pytest.raises(ParamsError, match=said) as caught:
        params_file.read(changed(path, ("dayfold", 'dayfold: "9.8.7"'), ("seed", "sead: 0")))
    assert "pip install dayfold==9.8.7" in caught.value.hint
    assert f'dayfold: "{__version__}"' in caught.value.hint


def test_an_edit_keeps_every_comment_and_quotes_both_days(path):
    changed(path)
    params_file.edit(path, {"day": "2025-06-04", "parent": "2025-06-03", "train.threads": 4})
    params = params_file.read(path)
    assert (params.day, params.parent, params.train.threads) == ("2025-06-04", "2025-06-03", 4)
    before, after = TEXT.splitlines(), path.read_text(encoding="utf-8").splitlines()
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert old.partition("#")[2] == new.partition("#")[2]
    differing = [new for old, new in zip(before, after, strict=True) if old.split() != new.split()]
    assert [line.partition("#")[0].strip() for line in differing] == [
        'day: "2025-06-04"',
        'parent: "2025-06-03"',
        "threads: 4",
    ]


def test_an_edit_that_changes_nothing_changes_no_byte_and_values_of_every_type_come_back(path):
    changed(path)
    params_file.edit(path, {"day": "none", "seed": 0})
    assert path.read_text(encoding="utf-8") == TEXT
    path.write_text("\ufeff" + TEXT, encoding="utf-8")  # as Windows' editor begins a file
    changes = {
        "origin.classes": ["cat", "no"],
        "replay.policy": "uniform",
        "train.ema_length": 0.25,
        "evaluate.max_per_cohort": None,
        "gate.min_new_f1": None,
    }
    params_file.edit(path, changes)
    params = params_file.read(path)
    assert params == params_file.with_changes(params, changes)
    assert (params.gate.min_new_f1, params.origin.classes) == (None, ["cat", "no"])
    for number in (1e-07, 0.0005, 3.0):
        params_file.edit(path, {"train.learning_rate": number})
        assert params_file.read(path).train.learning_rate == number
    wrong = {"replay.sise": 3, "replay.size": -1, "train.updates": "two"}
    with pytest.raises(ParamsError) as caught:
        params_file.with_changes(params, wrong)
    told = [problem.split()[0] for problem in caught.value.problems]
    assert told == ["replay.size", "replay.sise", "train.updates"]


# As 0.1.0 wrote them, with values of a person's own.
OLD_KEYS = (
    ("dayfold", 'dayfold: "0.1.0"'),
    ("    test", "    train: 0.7  # learnt from\n    test: 0.2               # judged by"),
    ("  group", '  group: "(p.)"            # our patients\n  min_side_px: 8           # pixels'),
    ("  versions", "  schedule: step           # step\n  recent_versions: 3       # versions"),
    ("  updates", "  epochs: 5                # 1 or more\n  updates_per_epoch: 40    # 1 or more"),
    ("gate", "checkpoint:                # kept\n  minutes: 2.0             # so often\n\ngate:"),
    ("  require_evidence", ""),
    ("  known_share", ""),
    ("  network", ""),
)


@pytest.fixture
def older(project):
    """A project as 0.1.0 left it."""
    vcs.git(project.root, "init", "--quiet")
    changed(project.params, *OLD_KEYS, ("seed", "seed: -1"), ("  size", "  size: 7"))
    pipeline = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    size = "      - replay.size\n"
    project.dvc_yaml.write_text(pipeline.replace(size, f"{size}      - replay.hard_share\n"))
    return project


def test_check_writes_the_files_of_this_version_with_the_values_of_an_older_ones(older):
    assert list(journal._parts(older)) == []  # what kills left is looked for all the same
    signs = (one for one in check._results(older, read_data=False) if one.name == "params")
    sign = next(signs)
    assert "of an older version" in sign.found
    sign.fix()
    # What is left is told, and is for a person to mend.
    (left,) = signs
    assert "seed is -1" in left.hint
    assert left.fix is None
    params_file.edit(older.params, {"seed": 0})
    signs = check._results(older, read_data=False)
    names = (one.name for one in signs)
    assert "git files" in names  # what is found of params follows
    assert next(names) == "half done"
    params = params_file.read(older.params)
    assert (params.train.updates, params.weights.versions, params.replay.size) == (200, 3, 7)
    assert params.data.group == "(p.)"
    assert (params.origin.network, params.predict.known_share) == ("resnet18", 0.95)
    comments = [line.partition("#")[2] for line in TEXT.splitlines()]
    assert [line.partition("#")[2] for line in older.params.read_text().splitlines()] == comments
    assert older.dvc_yaml.read_text() == (ROOT / "dvc.yaml").read_text()


def test_an_exponential_schedule_becomes_a_line_and_stages_of_a_person_s_own_are_left_alone(older):
    pipeline, text = older.dvc_yaml.read_text(), older.params.read_text()
    own = pipeline.replace("stages:\n", "stages:\n  mine:\n    cmd: ls\n")
    older.dvc_yaml.write_text(own)
    with pytest.raises(ParamsError, match="has stages of your own: mine"):
        template.upgrade(older)
    assert older.dvc_yaml.read_text() == own
    assert template.is_older(older)
    older.dvc_yaml.write_text(pipeline)
    # The line that is half way at the same age.
    line = "schedule: exponential\n  half_life_versions: 3.0"
    older.params.write_text(text.replace("schedule: step", line))
    template.upgrade(older)
    assert yaml.safe_load(older.params.read_text())["weights"]["versions"] == 6
