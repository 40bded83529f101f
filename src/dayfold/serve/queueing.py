"""Which images to label next: `dayfold predict --queue`."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from dayfold.errors import IntakeError, RefusedError
from dayfold.ledger import looks, splits
from dayfold.ledger.intake import checking
from dayfold.ledger.intake.delivery import Delivery, Found, safe_cell
from dayfold.ledger.intake.finding import name_problem, walk_day
from dayfold.project.console import Say, first_few, plural
from dayfold.project.files import escaped, for_spreadsheet, json_bytes, write_bytes, write_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params
from dayfold.proof.line import Line
from dayfold.serve.model import Answer, Classifier
from dayfold.serve.predicting import UNKNOWN, images, only_images

FORMS = ("csv", "label-studio")
COLUMNS = ("path", "label", "suggested", "confidence", "reason")  # formats.py knows them


class Queued(NamedTuple):
    """An image to label: its path in the folder, what the model makes of it, and why it is here.

    Nothing is `suggested` for an unknown image: the model has learnt no class for it.
    """

    path: str
    suggested: str
    confidence: float
    reason: str


def in_order(
    answers: Sequence[Answer],
    seen: Sequence[str],
    groups: Sequence[str],
    known: Sequence[str],
    *,
    judged: bool,
) -> list[int]:
    """Return the positions of the images to label, in order, without near duplicates.

    Unknown ones by distance; then those that are not sure and then all others, by confidence. Where
    nothing is `judged` to be unknown, all by distance. Within each of these parts every group has
    its turn before one has a second; an image without a group is one by itself. `seen` are the
    looks of the images, `known` those of images that are labelled. Ties keep the given order.
    """

    def need(place: int) -> tuple[int, float]:
        answer = answers[place]
        if answer.distance is not None and (answer.unknown or not judged):
            return 0, -round(answer.distance, 4)
        return 1 + answer.sure, round(answer.confidence, 4)

    order = sorted(range(len(answers)), key=need)
    order = [order[at] for at in looks.apart([seen[place] for place in order], known)]
    turns, taken = dict[int, tuple[int, int]](), Counter[tuple[int, str | int]]()
    for place in order:
        part = need(place)[0]
        group = part, groups[place] or place
        turns[place] = part, taken[group]
        taken[group] += 1
    return sorted(order, key=turns.__getitem__)


def reason(answer: Answer, *, judged: bool) -> str:
    """Say in plain words why an image is in the queue."""
    ranked = [f"{name} {chance:.2f}" for name, chance in answer.probabilities.items()][:2]
    if answer.unknown:
        return f"unlike anything known (distance {answer.distance:.2f}), most like {ranked[0]}"
    said = f"sure: {ranked[0]}" if answer.sure else f"not sure: {', '.join(ranked)}"
    far = "" if judged or answer.distance is None else f"distance {answer.distance:.2f}, "
    return far + said


def write_queue(
    project: Project,
    model: Classifier,
    folder: Path,
    *,
    count: int,
    file: Path,
    form: str,
    say: Say,
) -> None:
    """Write which `count` images of a folder to label next, and say what was left out.

    Files that cannot be used are passed over and raised at the end, as by `predict`.
    """
    if form not in FORMS:
        raise IntakeError(f"{form!r} is none of the formats.", hint=f"--format {'|'.join(FORMS)}")
    now = Line.read(project)
    history = now.history()
    known = {*history.images["image"], *history.withdrawn}
    seen = looks.read(project, history.days)["look"].to_list()
    lying = walk_day(project, now.day, Delivery()) if now.is_open else []
    given = only_images(images([folder]), (), say)
    files = [Found(path, path.relative_to(folder).as_posix(), "") for path in given]
    read = checking.examined([*lying, *files])
    for answer in read[: len(lying)]:
        known.add(answer["image"])
        seen.append(answer.get("look", ""))
    fresh, repeated, problems = dict[str, Found](), 0, list[str]()
    for one, answer in zip(files, read[len(lying) :], strict=True):
        if wrong := name_problem(one.place, "file") or answer.get("refused"):
            problems.append(f"{escaped(one.place)} {wrong}")
        elif answer["image"] in known:
            repeated += 1
        else:
            facts = {name: answer[name] for name in ("image", "look", "ids")}
            fresh.setdefault(answer["image"], one._replace(**facts))
    queued = _queued(model, [*fresh.values()], seen, now.params)
    if form == "csv":
        cells = ((safe_cell(at), "", for_spreadsheet(name), *of) for at, name, *of in queued)
        write_csv(file, COLUMNS, islice(cells, count))
        by_hand, labelled = "fill in the column label", str(file)
    else:
        write_bytes(file, json_bytes([_task(one, folder, model.day) for one in queued[:count]]))
        by_hand, labelled = "import it into Label Studio, label, and export as JSON", "FILE"
        say(f"The project's labelling interface: {_interface(model.classes)}")
    alike = len(files) - len(problems) - repeated - len(queued)
    say(f"written: {file}, {len(queued[:count])} of {plural(len(files), 'image')}")
    say(f"left out: {repeated} known already, {plural(alike, 'near duplicate')}")
    if isinstance(model.limit, str):
        say(f"By distance, and no image is called {UNKNOWN}: {model.limit}.")
    command = shlex.join(["dayfold", "add", str(folder), "--labels", labelled])
    say(f"next: {by_hand}, then {command}")
    if problems:
        what = f"{len(problems)} of {plural(len(files), 'file')} cannot be used:"
        raise RefusedError(what, problems=first_few(problems))


def _queued(
    model: Classifier, fresh: Sequence[Found], seen: Sequence[str], params: Params
) -> list[Queued]:
    """What the model makes of images that nobody has labelled, in order of need."""
    answers = model.predict(one.path for one in fresh)
    judged = not isinstance(model.limit, str)
    groups = []
    for one, answer in zip(fresh, answers, strict=True):
        # As it would lie in the project.
        path = f"data/images/{params.day}/{answer.label}/{one.path.name}"
        groups.append(splits.in_path(path, params.data.group) or one.ids)
    found = []
    for place in in_order(answers, [one.look for one in fresh], groups, seen, judged=judged):
        answer = answers[place]
        suggested = "" if answer.unknown else answer.label
        why = reason(answer, judged=judged)
        found.append(Queued(fresh[place].place, suggested, round(answer.confidence, 4), why))
    return found


def _task(one: Queued, folder: Path, day: str) -> dict[str, object]:
    """A task of Label Studio with the suggestion as a prediction.

    https://labelstud.io/guide/predictions; it serves FOLDER from local storage, whose root is the
    folder above: https://labelstud.io/guide/storage.
    """
    result = {
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [one.suggested]},
    }
    made = {"model_version": f"dayfold {day}", "score": one.confidence, "result": [result]}
    place = quote(f"{folder.resolve().name}/{one.path}")
    return {
        "data": {"image": f"/data/local-files/?d={place}", "reason": one.reason},
        "predictions": [made] if one.suggested else [],
    }


def _interface(classes: Iterable[str]) -> str:
    """The labelling interface that the predictions are for: with another they are refused."""
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image"/><Header value="$reason"/>'
        f'<Choices name="choice" toName="image">{choices}</Choices></View>'
    )
