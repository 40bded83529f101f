"""`dayfold predict --queue`: which images to label next.

Images unlike all that the model has learnt come first, then those that it is unsure of. A near
duplicate of a labelled or queued image is left out, and patients take turns.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from dayfold.errors import IntakeError, RefusedError
from dayfold.history.line import Line
from dayfold.ledger import grouping, looks
from dayfold.ledger.intake import checking
from dayfold.ledger.intake.delivery import Delivery, Found, safe_cell
from dayfold.ledger.intake.finding import name_problem, walk_day
from dayfold.project.console import Say, first_few, plural
from dayfold.project.files import escaped, for_spreadsheet, json_bytes, write_bytes, write_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params
from dayfold.serve.model import Answer, Classifier
from dayfold.serve.predicting import UNKNOWN, images, only_images

FORMS = ("csv", "label-studio")
COLUMNS = ("path", "label", "suggested", "confidence", "reason")  # formats.py knows them


class Queued(NamedTuple):
    """An image to label: its path in the folder, the model's suggestion and the reason.

    `suggested` is empty for an unknown image, as the model has learnt no class for it.
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

    Unknown images come first, by distance; then unsure ones and then the others, by confidence.
    Without a limit for unknown images (`judged` is false), all are ordered by distance. Within each
    part, every group has a turn before any has a second one; an image without a group is a group.
    `seen` are the looks of these images, `known` those of labelled ones. Ties keep the given order.
    """

    def need(place: int) -> tuple[int, float]:
        answer = answers[place]
        if answer.distance is not None and (answer.unknown or not judged):
            return 0, -round(answer.distance, 4)
        return 1 + answer.sure, round(answer.confidence, 4)

    order = sorted(range(len(answers)), key=need)
    order = [
        order[at] for at in looks.without_near_duplicates([seen[place] for place in order], known)
    ]
    turns, taken = dict[int, tuple[int, int]](), Counter[tuple[int, str | int]]()
    for place in order:
        part = need(place)[0]
        group = part, groups[place] or place
        turns[place] = part, taken[group]
        taken[group] += 1
    return sorted(order, key=turns.__getitem__)


def reason(answer: Answer, *, judged: bool) -> str:
    ranked = [f"{name} {part:.2f}" for name, part in answer.probabilities.items()][:2]
    if answer.unknown:
        return f"unlike anything known (distance {answer.distance:.2f}), most like {ranked[0]}"
    confidence = f"sure: {ranked[0]}" if answer.sure else f"not sure: {', '.join(ranked)}"
    distance = "" if judged or answer.distance is None else f"distance {answer.distance:.2f}, "
    return distance + confidence


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
    """Write the `count` images of a folder to label next, and print what was left out.

    Raises RefusedError at the end where files cannot be used, as `predict` does.
    """
    if form not in FORMS:
        raise IntakeError(f"{form!r} is none of the formats.", hint=f"--format {'|'.join(FORMS)}")
    now = Line.read(project)
    history = now.history()
    known = {*history.images["image"], *history.withdrawn}
    known_looks = looks.read(project, history.days)["look"].to_list()
    open_day = walk_day(project, now.day, Delivery()) if now.is_open else []
    paths = only_images(images([folder]), (), say)
    files = [Found(path, path.relative_to(folder).as_posix(), "") for path in paths]
    examined = checking.examine([*open_day, *files])
    for facts in examined[: len(open_day)]:
        known.add(facts["image"])
        known_looks.append(facts.get("look", ""))
    new, repeated, problems = dict[str, Found](), 0, list[str]()
    for one, facts in zip(files, examined[len(open_day) :], strict=True):
        if problem := name_problem(one.place, "file") or facts.get("refused"):
            problems.append(f"{escaped(one.place)} {problem}")
        elif facts["image"] in known:
            repeated += 1
        else:
            checked = one._replace(image=facts["image"], look=facts["look"], ids=facts["ids"])
            new.setdefault(checked.image, checked)
    queued = _queued(model, [*new.values()], known_looks, now.params)
    if form == "csv":
        cells = ((safe_cell(at), "", for_spreadsheet(name), *of) for at, name, *of in queued)
        write_csv(file, COLUMNS, islice(cells, count))
        by_hand, labels = "fill in the column label", str(file)
    else:
        write_bytes(file, json_bytes([_task(one, folder, model.day) for one in queued[:count]]))
        by_hand, labels = "import it into Label Studio, label, and export as JSON", "FILE"
        say(f"The project's labelling interface: {_interface(model.classes)}")
    duplicates = len(files) - len(problems) - repeated - len(queued)
    say(f"written: {file}, {len(queued[:count])} of {plural(len(files), 'image')}")
    say(f"left out: {repeated} known already, {plural(duplicates, 'near duplicate')}")
    if isinstance(model.limit, str):
        say(f"By distance, and no image is called {UNKNOWN}: {model.limit}.")
    command = shlex.join(["dayfold", "add", str(folder), "--labels", labels])
    say(f"next: {by_hand}, then {command}")
    if problems:
        what = f"{len(problems)} of {plural(len(files), 'file')} cannot be used:"
        raise RefusedError(what, problems=first_few(problems))


def _queued(
    model: Classifier, new: Sequence[Found], known_looks: Sequence[str], params: Params
) -> list[Queued]:
    answers = model.predict(one.path for one in new)
    judged = not isinstance(model.limit, str)
    groups = []
    for one, answer in zip(new, answers, strict=True):
        # The path that it would have in the project.
        path = f"data/images/{params.day}/{answer.label}/{one.path.name}"
        groups.append(grouping.in_path(path, params.data.group) or one.ids)
    queued = []
    for at in in_order(answers, [one.look for one in new], groups, known_looks, judged=judged):
        answer = answers[at]
        suggested = "" if answer.unknown else answer.label
        why = reason(answer, judged=judged)
        queued.append(Queued(new[at].place, suggested, round(answer.confidence, 4), why))
    return queued


def _task(one: Queued, folder: Path, day: str) -> dict[str, object]:
    """Return a task of Label Studio with the suggestion as a prediction.

    https://labelstud.io/guide/predictions. Label Studio serves the folder from local storage, whose
    root is the folder above: https://labelstud.io/guide/storage.
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
    """Return the labelling interface that Label Studio needs to accept the predictions."""
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image"/><Header value="$reason"/>'
        f'<Choices name="choice" toName="image">{choices}</Choices></View>'
    )
