"""`dayfold predict`: files → answers."""

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
    """Predict each file and print the answers, or write them into the file `csv`.

    Files that are no images are passed over, except those that were `named`. Raises RefusedError at
    the end where a file cannot be read.
    """
    files = only_images(paths, named, say)
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
        raise RefusedError(
            f"{len(problems)} of {len(files)} files cannot be predicted:",
            problems=first_few(problems, str(csv or "")),
        )


def only_images(paths: Sequence[Path], named: Collection[Path], say: Say) -> list[Path]:
    """Return the files that may be images or were `named`; say which others there are."""
    with decode.no_warnings():
        chosen = [path for path in paths if path in named or _may_be_image(path)]
    if others := set(paths).difference(chosen):
        listed = ", ".join(first_few([escaped(str(path)) for path in paths if path in others]))
        say(f"passed over {plural(len(others), 'file')}, no images: {listed}")
    if not chosen:
        raise IntakeError("There is no image in it.")
    return chosen


def _may_be_image(path: Path) -> bool:
    """Whether a file is an image by its name or its first bytes, damaged or not."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False  # who opens a pipe that nobody writes into waits for ever
        return path.suffix.lower() in decode.IMAGE_ENDINGS or decode.begins_as_image(path)
    except OSError:
        return True  # so that a file that cannot be read is reported


def line(answer: Answer, top: int, width: int) -> str:
    """Return an answer as a line: the class and its confidence, and the next ones up to `top`."""
    ranked = [f"{name} {chance:.3f}" for name, chance in answer.probabilities.items()]
    if answer.unknown:
        return f"{UNKNOWN:{width}}  distance {answer.distance:.3f}, most like {ranked[0]}"
    if answer.sure:
        rest = f"  then {', '.join(ranked[1:top])}" if top > 1 else ""
        return f"{answer.label:{width}}  {answer.confidence:.3f}{rest}"
    # At least two classes: the model cannot decide between them.
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
