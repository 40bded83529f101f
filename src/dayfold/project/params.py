"""params.yaml, typed and validated."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dayfold import __version__
from dayfold.errors import CycleError, ParamsError
from dayfold.project import template, yaml_file
from dayfold.project.files import escaped
from dayfold.project.layout import ORIGIN, UNOPENED, is_day
from dayfold.project.yaml_file import edit as edit

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Network = Literal["resnet18", "resnet34", "resnet50"]
NETWORK: Network = "resnet18"  # for projects and models from when it was the only network


REMOVED_KEYS = ("max_pixels", "report")  # in params.yaml of sealed days; they are ignored


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_removed_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key not in REMOVED_KEYS}


class Origin(_Section):
    """What the first day starts from: "imagenet", "random" or a file, and its head's classes."""

    network: Network = NETWORK
    weights: Annotated[str, Field(min_length=1)]
    classes: list[str]


class Split(_Section):
    """Fractions of the images, each in 0..1, for whole groups; the rest is for training."""

    validation: Share
    test: Share

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> "Split":
        if self.fractions()["train"] <= 0:
            held = self.validation + self.test
            raise ValueError(f"validation + test must be below 1, not {held:g}")
        return self

    def fractions(self) -> dict[str, float]:
        train = round(1 - self.validation - self.test, 9)
        return {"train": train, "validation": self.validation, "test": self.test}


class Data(_Section):
    """How images become rows of the manifest."""

    split: Split
    group: str

    @field_validator("group")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if odd := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", value):
            raise ValueError(
                f"has the control character {odd[0]!r}, which no path has: {yaml_file.BACKSLASH}"
            )
        if value and groups != 1:
            raise ValueError(
                f"needs exactly one (…), around the patient's id, and has {groups}: '/(P\\d+)_'"
            )
        return value


class Weights(_Section):
    """What an image counts for in today's draws, by the age of its data version."""

    recent: Annotated[float, Field(gt=0)]
    base: Annotated[float, Field(gt=0)]
    versions: Positive
    over: Literal["pool", "history"]
    class_balance: Share


class Replay(_Section):
    """Which earlier training images today's training sees again."""

    policy: Literal["class_balanced", "uniform", "recency", "all"]
    size: Annotated[int, Field(ge=0)]


class Augment(_Section):
    """The largest random change of a training image; 0 turns one off."""

    flip: Share
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=0.5)]
    scale: Annotated[float, Field(ge=0, le=0.5)]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]


class Train(_Section):
    """The recipe of one day's training."""

    image_size_px: Annotated[int, Field(ge=16, le=1024)]
    updates: Positive
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    distill: Annotated[float, Field(ge=0, le=100)]
    ema_length: Share
    frozen_through: Literal["none", "stem", "layer1", "layer2", "layer3", "all"]
    augment: Augment
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Annotated[int, Field(ge=1, le=512)]
    processes: Annotated[int, Field(ge=1, le=4096)]

    @model_validator(mode="after")
    def _every_process_has_images(self) -> "Train":
        if self.batch_size < 2 * self.processes:
            raise ValueError(
                f"batch_size {self.batch_size} is too small for {self.processes} processes: "
                "each needs 2 images of a batch or more"
            )
        return self


class Evaluate(_Section):
    """How the held-out images are predicted."""

    max_per_cohort: Positive | None


class Predict(_Section):
    """How the model is used, and what it calls unknown (null: nothing)."""

    threshold: Share
    known_share: Annotated[float, Field(gt=0, lt=1)] | None = 0.95  # its value before it was a key


class Gate(_Section):
    """Limits that a day has to meet, each compared with an interval; null is not checked.

    If `require_evidence` is true, a limit on a figure that rests on too few units is not met.
    """

    max_forgetting: Share | None
    max_negative_flip_rate: Share | None
    min_class_f1: Share | None
    min_new_f1: Share | None
    max_unlike_known: Share | None = None  # its value before it was a key
    require_evidence: bool = False  # its value before it was a key


class Params(_Section):
    """All of params.yaml."""

    dayfold: str
    day: str
    parent: str
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    origin: Origin
    data: Data
    weights: Weights
    replay: Replay
    train: Train
    evaluate: Evaluate
    predict: Predict
    gate: Gate

    @field_validator("day", "parent")
    @classmethod
    def _is_a_day(cls, value: str, field: ValidationInfo) -> str:
        if value != (UNOPENED if field.field_name == "day" else ORIGIN) and not is_day(value):
            raise ValueError(f"{value!r} is not a day.")
        return value

    @model_validator(mode="after")
    def _parent_comes_before(self) -> "Params":
        dated = not {self.day, self.parent} & {ORIGIN, UNOPENED}
        if dated and self.parent >= self.day:
            raise ValueError(f"parent {self.parent} is not before day {self.day}")
        if self.day == UNOPENED and self.parent != ORIGIN:
            raise ValueError(f"day is {self.day}, so parent must be {ORIGIN}")
        return self


def read(path: Path) -> Params:
    """Read and check params.yaml.

    Raises ParamsError if the project is pinned to another version of dayfold, or with every unknown
    key, wrong type and value out of range, each with its line.
    """
    node, values = yaml_file.load(path)
    if not isinstance(values, dict):
        raise ParamsError(f"{path.name} holds no keys.", hint=f"git checkout -- {path.name}")
    pin = values.get("dayfold", __version__)
    if isinstance(pin, str) and pin != __version__:
        # Checked first, so that keys of another version are not called unknown.
        by_hand = f'set  dayfold: "{__version__}"  in {path.name}'
        go_on = template.FIX if pin in template.OLDER else by_hand
        raise ParamsError(
            f"This project is pinned to dayfold {pin}, installed is {__version__}.",
            hint=f"pip install dayfold=={pin}, or, to use the installed one, {go_on} "
            "(today is then made again)",
        )
    problems = [f"{path.name}:{line}" for line in yaml_file.twice(node)]
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            line = yaml_file.find(node, [*map(str, problem["loc"])])[0]
            problems.append(f"{path.name}:{line}: {_explain(problem)}")
    if problems:
        raise ParamsError(
            f"{path.name} has {len(problems)} problem{'s' * (len(problems) > 1)}:",
            problems=problems,
            hint=f"edit {path.name}; the comment beside a key gives its unit and range",
        )
    return params


def named_network(facts: Mapping[str, Any]) -> str:
    """Return the network that a model's metadata or `origin` names, as in `origin.network`."""
    return str(facts.get("network", NETWORK))


def check_network(params: Params, facts: Mapping[str, Any]) -> None:
    """Raise CycleError if params.yaml has another network than a model's metadata."""
    asked, made = params.origin.network, named_network(facts)
    if asked != made:
        raise CycleError(
            f"origin.network is {asked}, but this project began with {made} and keeps it.",
            hint=f'set  network: "{made}"  in params.yaml; another network needs another project: '
            f"dayfold init DIR --network {asked}",
        )


def day_of(text: bytes) -> str:
    """Return the day in a params.yaml, unchecked; "" if there is none."""
    try:
        return str(yaml.load(text, Loader=yaml.CSafeLoader)["day"])
    except (yaml.YAMLError, KeyError, TypeError):
        return ""


def with_changes(params: Params, changes: Mapping[str, object]) -> Params:
    """Return params with dotted keys set; raise ParamsError that lists all problems."""
    values = params.model_dump()
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place: Any = values
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}  # not a section: pydantic reports it
            place = place[section]
        place[key] = value
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
    raise ParamsError("These params cannot be set:", problems=problems)


def _explain(problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    kind, found = problem["type"], problem["input"]
    line = ".".join(where) or "top level"
    if kind == "extra_forbidden":
        model: Any = Params
        for section in where[:-1]:
            model = model.model_fields[section].annotation
        return f"{line} is not a known key; known here: {', '.join(model.model_fields)}"
    if kind == "missing":
        return f"{line} is missing"
    if kind == "string_type" and type(found).__name__ == "date":
        return f'{line} is read by YAML as a date; quote it: "{found}"'
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(found, dict):
        return f"{line}: {message}"
    if kind == "float_type" and re.fullmatch(r"[-+.\de]+", str(found), re.IGNORECASE):
        message += "; YAML reads 1e-3 as text, write 0.001"
    # Not repr: an expression would show each backslash twice.
    shown = f"'{escaped(found)}'" if isinstance(found, str) else repr(found)
    return f"{line} is {shown}: {message[0].lower()}{message[1:]}"
