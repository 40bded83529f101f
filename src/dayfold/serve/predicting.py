"""Files → answers: `dayfold predict`."""

import os
import stat
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from dayfold.errors import IntakeError, RefusedError
from dayfold.ledger import decode
from dayfold.ledger.intake.finding import is_clutter
from dayfold.project.console import Say, first_few, plural
from dayfold.project.files import escaped, for_spreadsheet, write_csv
from dayfold.serve.model import Answer, Classifier

NOT_SURE, UNKNOWN = "not sure", "unknown"


def images(sources: Sequence[Path]) -> list[Path]:
    """Return every file of these files and folders, without hidden ones, sorted within a folder."""
    if missing := [f"{source} does not exist" for source in sources if not source.exists()]:
        raise IntakeError("Not all of this is there:", problems=missing)
    found: list[Path] = []
    for source in sources:
        found += [] if source.is_dir() else [source]
        for place, folders, files in os.walk(source):
            folders[:] = sorted(name for name in folders if not is_clutter(name))
            names = sorted(name for name in files if not is_clutter(name))
            found += [Path(place, name) for name in names]
    if not found:
        raise IntakeError("There is no file in it.", problems=[str(source) for source in sources])
    return found


def predict(
    model: Classifier,
    paths: Sequence[Path],
    *,
    named: Collection[Path] = (),
    top: int,
    csv: Path | None,
    say: Say,
) -> None:
    """Say what the model makes of each file, and how fast; into a CSV file if one is given.

    Files that are no images are passed over, but for those that were `named`.
    """
    kept = only_images(paths, named, say)
    top = min(top, len(model.classes))
    began = time.monotonic()
    width = min(max(len(escaped(str(path))) for path in kept), 60)
    names = max(len(name) for name in (*model.classes, NOT_SURE, UNKNOWN))
    answers: list[Answer | str] = []
    for path, answer in zip(kept, model.each(kept), strict=True):
        answers.append(answer)
        if isinstance(answer, Answer) and not csv:
            say(f"{escaped(str(path)):{width}}  {line(answer, top, names)}")
    seconds = time.monotonic() - began
    if csv:
        _write(csv, kept, answers, top)
        say(f"written: {csv}, a line a file")
    good = [answer for answer in answers if isinstance(answer, Answer)]
    unsure = sum(not (answer.sure or answer.unknown) for answer in good)
    unknown = sum(answer.unknown for answer in good)
    is_off = isinstance(model.limit, str)
    far = "" if is_off else f", {unknown} {UNKNOWN} (distance above {model.limit:.3f})"
    say(
        f"{plural(len(good), 'image')} in {seconds:.1f} s, "
        f"{len(good) / seconds:.0f} img/s; "
        f"{unsure} {NOT_SURE} (confidence below {model.threshold:g}){far}"
    )
    if is_off:
        say(f"No image is called {UNKNOWN}: {model.limit}.")
    if model.calibration.startswith("not"):
        say(f"Confidence is {model.calibration}.")
    if problems := [answer for answer in answers if isinstance(answer, str)]:
        raise RefusedError(
            f"{len(problems)} of {len(kept)} files cannot be predicted:",
            problems=first_few(problems, str(csv or "")),
        )


def only_images(paths: Sequence[Path], named: Collection[Path], say: Say) -> list[Path]:
    """Return the files that may be images, or were `named`; say which others there are."""
    with decode.no_warnings():
        kept = [path for path in paths if path in named or _may_be_image(path)]
    if others := set(paths).difference(kept):
        listed = ", ".join(first_few([escaped(str(path)) for path in paths if path in others]))
        say(f"passed over {plural(len(others), 'file')}, no images: {listed}")
    if not kept:
        raise IntakeError("There is no image in it.")
    return kept


def _may_be_image(path: Path) -> bool:
    """Whether a file is an image by its name or by how its bytes begin, damaged or not."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False  # who opens a pipe that nobody writes into waits for ever
        return path.suffix.lower() in decode.IMAGE_ENDINGS or decode.begins_as_image(path)
    except OSError:
        return True  # what cannot be read is told, not passed over


def line(answer: Answer, top: int, width: int) -> str:
    """Return an answer as a line: the class and its confidence, and the next ones up to `top`."""
    ranked = [f"{name} {chance:.3f}" for name, chance in answer.probabilities.items()]
    if answer.unknown:
        return f"{UNKNOWN:{width}}  distance {answer.distance:.3f}, most like {ranked[0]}"
    if answer.sure:
        rest = f"  then {', '.join(ranked[1:top])}" if top > 1 else ""
        return f"{answer.label:{width}}  {answer.confidence:.3f}{rest}"
    # At least two: it is between them that the model cannot decide.
    return f"{NOT_SURE:{width}}  {', '.join(ranked[: max(top, 2)])}"


def _write(path: Path, files: Sequence[Path], answers: Sequence[Answer | str], top: int) -> None:
    header = ["path", "predicted", "confidence", "sure", "unknown", "distance"]
    header += [f"{name}_{rank}" for rank in range(2, top + 1) for name in header[1:3]]
    rows: list[list[object]] = []
    for file, answer in zip(files, answers, strict=True):
        if isinstance(answer, Answer):
            ranked = list(answer.probabilities.items())[:top]
            cells = [cell for name, chance in ranked for cell in (_cell(name), chance)]
            found = [int(answer.sure), int(answer.unknown), answer.distance]
            rows.append([_cell(str(file)), *cells[:2], *found, *cells[2:], ""])
        else:
            rows.append([_cell(str(file)), *[""] * (len(header) - 1), _cell(answer)])
    write_csv(path, [*header, "problem"], rows)


def _cell(text: str) -> str:
    """Text for a spreadsheet; names need not be UTF-8, cells must."""
    return for_spreadsheet(text.encode(errors="backslashreplace").decode())
