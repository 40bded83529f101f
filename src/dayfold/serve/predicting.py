"""`dayfold predict`: files → answers, or a queue of images to label.

In the queue, images unlike all that the model has learnt come first, then those that it is unsure
of. Near duplicates of labelled or queued images are left out, and patients take turns.
"""

import os
import shlex
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from dayfold.errors import IntakeError, RefusedError
from dayfold.history.state import ProjectState
from dayfold.ledger import decode, grouping, looks
from dayfold.ledger.intake.delivery import Delivery, FoundFile, examine, safe_cell
from dayfold.ledger.intake.finding import walk_day
from dayfold.ledger.names import is_clutter, name_problem
from dayfold.project.console import first_few, plural, say
from dayfold.project.files import escaped, for_spreadsheet, json_bytes, write_bytes, write_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params
from dayfold.serve.model import Answer, Classifier

NOT_SURE, UNKNOWN = "not sure", "unknown"
FORMS = ("csv", "label-studio")  # of a queue
COLUMNS = ("path", "label", "suggested", "confidence", "reason")  # formats.py reads them


def images(sources: Sequence[Path]) -> list[Path]:
    """Return every file of these files and folders, without hidden ones, sorted within a folder."""
    if missing := [f"{source} does not exist" for source in sources if not source.exists()]:
        raise IntakeError("Some of these do not exist:", problems=missing)
    found: list[Path] = []
    for source in sources:
        found += [] if source.is_dir() else [source]
        for place, folders, files in os.walk(source):
            folders[:] = sorted(name for name in folders if not is_clutter(name))
            found += [Path(place, name) for name in sorted(files) if not is_clutter(name)]
    if not found:
        raise IntakeError("There are no files to predict.", problems=[*map(str, sources)])
    return found


def predict(
    model: Classifier,
    paths: Sequence[Path],
    *,
    named: Collection[Path] = (),
    top: int,
    csv: Path | None,
) -> None:
    """Predict each file and print the answers, or write them into the file `csv`.

    Files that are no images are skipped, except those that were `named`. Raises RefusedError at the
    end if a file cannot be read.
    """
    files = only_images(paths, named)
    top = min(top, len(model.classes))
    began = time.monotonic()
    path_width = min(max(len(escaped(str(path))) for path in files), 60)
    class_width = max(len(name) for name in (*model.classes, NOT_SURE, UNKNOWN))
    results: list[Answer | str] = []
    for path, result in zip(files, model.each(files), strict=True):
        results.append(result)
        if isinstance(result, Answer) and not csv:
            say(f"{escaped(str(path)):{path_width}}  {line(result, top, class_width)}")
    seconds = time.monotonic() - began
    if csv:
        _write(csv, files, results, top)
        say(f"written: {csv}, a line a file")
    answers = [result for result in results if isinstance(result, Answer)]
    unsure = sum(not (answer.sure or answer.unknown) for answer in answers)
    counts = f"{unsure} {NOT_SURE} (confidence below {model.threshold:g})"
    if isinstance(model.limit, float):
        unknown = sum(answer.unknown for answer in answers)
        counts += f", {unknown} {UNKNOWN} (distance above {model.limit:.3f})"
    speed = f"{seconds:.1f} s, {len(answers) / seconds:.0f} img/s"
    say(f"{plural(len(answers), 'image')} in {speed}; {counts}")
    if isinstance(model.limit, str):
        say(f"No image is called {UNKNOWN}: {model.limit}.")
    if model.calibration.startswith("not"):
        say(f"Confidence is {model.calibration}.")
    if problems := [result for result in results if isinstance(result, str)]:
        what = f"{len(problems)} of {len(files)} files cannot be predicted:"
        raise RefusedError(what, problems=first_few(problems, str(csv or "")))


def only_images(paths: Sequence[Path], named: Collection[Path] = ()) -> list[Path]:
    """Return the files that may be images or were `named`; say which others there are."""
    with decode.no_warnings():
        chosen = [path for path in paths if path in named or _may_be_image(path)]
    if others := set(paths).difference(chosen):
        listed = ", ".join(first_few([escaped(str(path)) for path in paths if path in others]))
        say(f"skipped {plural(len(others), 'file')}, no images: {listed}")
    if not chosen:
        raise IntakeError("There are no images to predict.")
    return chosen


def _may_be_image(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False  # opening a pipe may never end
        return path.suffix.lower() in decode.IMAGE_ENDINGS or decode.begins_as_image(path)
    except OSError:
        return True  # so that a file that cannot be read is reported


def line(answer: Answer, top: int, width: int) -> str:
    ranked = [f"{name} {chance:.3f}" for name, chance in answer.probabilities.items()]
    if answer.unknown:
        return f"{UNKNOWN:{width}}  distance {answer.distance:.3f}, most like {ranked[0]}"
    if answer.sure:
        rest = f"  then {', '.join(ranked[1:top])}" if top > 1 else ""
        return f"{answer.label:{width}}  {answer.confidence:.3f}{rest}"
    # Show two classes or more, as the model cannot decide between them.
    return f"{NOT_SURE:{width}}  {', '.join(ranked[: max(top, 2)])}"


def _write(path: Path, files: Sequence[Path], results: Sequence[Answer | str], top: int) -> None:
    header = ["path", "predicted", "confidence", "sure", "unknown", "distance"]
    header += [f"{name}_{rank}" for rank in range(2, top + 1) for name in header[1:3]]
    rows: list[list[object]] = []
    for file, result in zip(files, results, strict=True):
        if isinstance(result, Answer):
            ranked = list(result.probabilities.items())[:top]
            cells = [cell for name, part in ranked for cell in (_cell(name), part)]
            flags = [int(result.sure), int(result.unknown), result.distance]
            rows.append([_cell(str(file)), *cells[:2], *flags, *cells[2:], ""])
        else:
            rows.append([_cell(str(file)), *[""] * (len(header) - 1), _cell(result)])
    write_csv(path, [*header, "problem"], rows)


def _cell(text: str) -> str:
    """Return text for a spreadsheet: in UTF-8, which a file's name need not be."""
    return for_spreadsheet(text.encode(errors="backslashreplace").decode())


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
    of these parts every group has a turn before any has a second; an image without a group is a
    group of its own. `seen` are the looks of these images, `known` those of labelled ones. Ties
    keep the given order.
    """

    def need(place: int) -> tuple[int, float]:
        answer = answers[place]
        if answer.distance is not None and (answer.unknown or not judged):
            return 0, -round(answer.distance, 4)
        return 1 + answer.sure, round(answer.confidence, 4)

    order = sorted(range(len(answers)), key=need)
    fresh = looks.without_near_duplicates([seen[place] for place in order], known)
    turns, taken = dict[int, tuple[int, int]](), Counter[tuple[int, str | int]]()
    for place in (order[at] for at in fresh):
        part = need(place)[0]
        group = part, groups[place] or place
        turns[place] = part, taken[group]
        taken[group] += 1
    return sorted(turns, key=turns.__getitem__)


def reason(answer: Answer, *, judged: bool) -> str:
    ranked = [f"{name} {part:.2f}" for name, part in answer.probabilities.items()][:2]
    if answer.unknown:
        return f"unlike anything known (distance {answer.distance:.2f}), most like {ranked[0]}"
    confidence = f"sure: {ranked[0]}" if answer.sure else f"not sure: {', '.join(ranked)}"
    distance = "" if judged or answer.distance is None else f"distance {answer.distance:.2f}, "
    return distance + confidence


def write_queue(
    project: Project, model: Classifier, folder: Path, *, count: int, file: Path, form: str
) -> None:
    """Write the `count` images of a folder to label next, and print what was left out.

    Raises RefusedError at the end where files cannot be used, as `predict` does.
    """
    if form not in FORMS:
        what = f"{form!r} is not one of the formats."
        raise IntakeError(what, hint=f"--format {'|'.join(FORMS)}")
    now = ProjectState.read(project)
    history = now.history()
    known = {*history.images["image"], *history.withdrawn}
    known_looks = looks.read(project, history.days)["look"].to_list()
    open_day = walk_day(project, now.day, Delivery()) if now.is_open else []
    paths = only_images(images([folder]))
    files = [FoundFile(path, path.relative_to(folder).as_posix(), "") for path in paths]
    examined = examine([*open_day, *files])
    known |= {facts["image"] for facts in examined[: len(open_day)]}
    known_looks += [facts.get("look", "") for facts in examined[: len(open_day)]]
    new, repeated, problems = dict[str, FoundFile](), 0, list[str]()
    for found, facts in zip(files, examined[len(open_day) :], strict=True):
        if problem := name_problem(found.place, "file") or facts.get("refused"):
            problems.append(f"{escaped(found.place)} {problem}")
        elif facts["image"] in known:
            repeated += 1
        else:
            checked = found._replace(image=facts["image"], look=facts["look"], ids=facts["ids"])
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
        say(f"The order is by distance; no image is called {UNKNOWN}: {model.limit}.")
    command = shlex.join(["dayfold", "add", str(folder), "--labels", labels])
    say(f"next: {by_hand}, then {command}")
    if problems:
        what = f"{len(problems)} of {plural(len(files), 'file')} cannot be used:"
        raise RefusedError(what, problems=first_few(problems))


def _queued(
    model: Classifier, new: Sequence[FoundFile], known_looks: Sequence[str], params: Params
) -> list[Queued]:
    answers = model.predict(one.path for one in new)
    judged = not isinstance(model.limit, str)
    groups = []
    for image, answer in zip(new, answers, strict=True):
        # The path that the image would have in the project.
        path = f"data/images/{params.day}/{answer.label}/{image.path.name}"
        groups.append(grouping.in_path(path, params.data.group) or image.ids)
    order = in_order(answers, [one.look for one in new], groups, known_looks, judged=judged)
    return [
        Queued(
            path=new[at].place,
            suggested="" if answers[at].unknown else answers[at].label,
            confidence=round(answers[at].confidence, 4),
            reason=reason(answers[at], judged=judged),
        )
        for at in order
    ]


def _task(one: Queued, folder: Path, day: str) -> dict[str, object]:
    """Return a task of Label Studio with the suggestion as a prediction.

    https://labelstud.io/guide/predictions. Label Studio serves the folder from local storage, whose
    root is the folder above: https://labelstud.io/guide/storage.
    """
    value = {"choices": [one.suggested]}
    result = {"from_name": "choice", "to_name": "image", "type": "choices", "value": value}
    made = {"model_version": f"dayfold {day}", "score": one.confidence, "result": [result]}
    place = quote(f"{folder.resolve().name}/{one.path}")
    return {
        "data": {"image": f"/data/local-files/?d={place}", "reason": one.reason},
        "predictions": [made] if one.suggested else [],
    }


def _interface(classes: Iterable[str]) -> str:
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image"/><Header value="$reason"/>'
        f'<Choices name="choice" toName="image">{choices}</Choices></View>'
    )
