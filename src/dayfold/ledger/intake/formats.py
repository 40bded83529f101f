"""Files of labelling tools → tables of labels.

A format is recognised by its content. Each function names the page that documents its format.
"""

import csv
import io
import json
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from dayfold.errors import IntakeError
from dayfold.ledger.intake import workers
from dayfold.project.console import first_few
from dayfold.project.files import separator

KNOWN = (
    "CSV, Parquet, JSON and JSON lines of such columns; Label Studio's JSON and JSON-MIN; CVAT for "
    "images 1.1 (XML); CVAT's ImageNet text file beside its synsets.txt; COCO JSON"
)
_MOST_BYTES = 2**28  # of a label file: enough for two million rows of a hundred bytes


class Row(NamedTuple):
    """A row of a label file: its place for messages, its cells by column, why it is unusable."""

    where: str
    cells: Mapping[str, Any]
    problem: str = ""


class Table(NamedTuple):
    """A label file: its lines and the names of their columns.

    `columns` maps path and label to their columns, if the format defines them. In a `partial` file
    an empty label means that nobody has labelled the image yet.
    """

    rows: list[Row]
    names: Sequence[str]
    columns: Mapping[str, str] = {}
    partial: bool = False


def read(file: Path) -> Table:
    """Read a label file; raise IntakeError if it is damaged or of no known format."""
    try:
        info = file.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST_BYTES:
            most = f"{_MOST_BYTES // 2**20} MiB or less"
            raise IntakeError(f"{file} is not a file of {most}.", hint="--labels FILE")
        data = file.read_bytes()
        synsets = file.with_name("synsets.txt")
        is_imagenet = file.suffix == ".txt" and synsets != file and synsets.is_file()
        if data.startswith(b"PAR1"):
            return _parquet(file)
        text = data.decode("utf-8-sig")
        start = text.lstrip()[:1]
        if start == "<":
            return _cvat(file, text)
        if start in ("[", "{"):
            return _json(file, text)
        return _imagenet(text, synsets.read_text("utf-8-sig")) if is_imagenet else _csv(file, text)
    except OSError as error:
        what = f"{file} cannot be read: {error.strerror}."
        hint = "--labels FILE; if it is in an archive, unpack that first"
        raise IntakeError(what, hint=hint) from None
    except UnicodeDecodeError as error:
        hint = "save it as UTF-8, in a spreadsheet as “CSV UTF-8”"
        raise IntakeError(f"{file} is not UTF-8 ({error.reason}).", hint=hint) from None


def _unknown(file: Path, why: str) -> IntakeError:
    return IntakeError(f"{file} is of no known format: {why}.", hint=f"known: {KNOWN}")


def _parquet(file: Path) -> Table:
    names, rows = workers.parquet(file)
    cells = (dict(zip(names, row, strict=True)) for row in rows)
    return Table([Row(f"row {number}", one) for number, one in enumerate(cells, 1)], names)


def _csv(file: Path, text: str) -> Table:
    try:
        table = csv.reader(io.StringIO(text, newline=""), delimiter=separator(text), strict=True)
        # Spreadsheets write empty rows below the last row, and empty columns beside the last
        # column.
        rows = [(table.line_num, row) for row in table if any(map(str.strip, row))]
    except csv.Error as error:
        what = f"{file} cannot be read as CSV: {error}."
        raise IntakeError(what, hint=f"known: {KNOWN}") from None
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    width = max((at for at, cell in enumerate(header, start=1) if cell), default=0)
    header = header[:width]
    rows = [(number, row if any(row[width:]) else row[:width]) for number, row in rows]
    problems = [
        f"line {number} has {len(row)} columns, not {len(header)}"
        for number, row in rows[1:]
        if len(row) != len(header)
    ]
    if problems:
        hint = f"a cell that has a {separator(text)!r} in it is in double quotes"
        what = f"{file} has rows that do not fit:"
        raise IntakeError(what, problems=first_few(problems), hint=hint)
    if len(set(header)) < len(header):
        raise IntakeError(f"{file} has two columns of one name.", hint="rename one of them")
    entries = [(f"line {number}", dict(zip(header, row, strict=True))) for number, row in rows[1:]]
    return _entries(entries, header)


def _json(file: Path, text: str) -> Table:
    try:
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            if "Extra data" not in error.msg:
                raise
            value = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        what = f"{file} cannot be read as JSON: {error}."
        raise IntakeError(what, hint="export it again") from None
    if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
        return _coco(file, value)
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in entries):
        raise _unknown(file, "its entries are no objects")
    if any("data" in one and {"annotations", "predictions"} & one.keys() for one in entries):
        return _label_studio(entries)
    names = list(dict.fromkeys(name for one in entries for name in one))
    return _entries([(f"entry {number}", one) for number, one in enumerate(entries, 1)], names)


def _entries(entries: Iterable[tuple[str, dict[str, Any]]], names: Sequence[str]) -> Table:
    """Return a table of one image a line: an ImageFolder's metadata, JSON-MIN, or a queue.

    https://huggingface.co/docs/datasets/image_dataset#imagefolder and
    https://labelstud.io/guide/export. JSON-MIN, and the CSV that Label Studio makes of it, have the
    column `annotation_id`; in them a list holds regions and an object several choices. A queue of
    `dayfold predict` has the column `suggested`; its labels are empty until somebody fills them in.
    """
    is_queue = {"path", "label", "suggested"} <= {*names}
    lines, partial = [], is_queue or "annotation_id" in names
    for where, cells in entries:
        for name, cell in cells.items() if partial else ():
            if isinstance(cell, str) and cell[:1] in ("[", "{"):
                with suppress(ValueError, RecursionError):
                    cells[name] = json.loads(cell)
        regions = {
            name: len(cell)
            for name, cell in cells.items()
            if isinstance(cell, list) and any(isinstance(part, dict) for part in cell)
        }
        lines.append(Row(where, cells, _beside(regions)))
    columns = {"path": "path", "label": "label"} if is_queue else {}
    return Table(lines, names, columns, partial=partial)


def _label_studio(tasks: list[dict[str, Any]]) -> Table:
    """Read Label Studio's JSON: tasks with annotations, and annotations with results of any kind.

    https://labelstud.io/guide/task_format and https://labelstud.io/tags/choices: a column of
    choices has the name of its control; `data` has the image under a key that the team chose.
    """
    lines: list[Row] = []
    fields, controls = dict[str, None](), dict[str, None]()
    for number, task in enumerate(tasks, 1):
        where = f"task {task.get('id', number)}"
        data, upload = task.get("data"), task.get("file_upload")
        data = data if isinstance(data, dict) else {}
        if not data and isinstance(upload, str):
            data = {"image": f"/data/upload/{upload}"}
        fields |= dict.fromkeys(data)
        given = [one for one in _list(task, "annotations") if isinstance(one, dict)]
        done = [one for one in given if not one.get("was_cancelled")]
        for annotation in done:
            choices, regions = dict[str, list[Any]](), Counter[str]()
            for result in _list(annotation, "result"):
                kind = result.get("type") if isinstance(result, dict) else None
                if kind == "choices":
                    picked = choices.setdefault(str(result.get("from_name")), [])
                    picked.extend(_list(result.get("value"), "choices"))
                else:
                    regions[str(kind)] += 1
            controls |= dict.fromkeys(choices)
            by = annotation.get("completed_by")
            by = by.get("email", by.get("id")) if isinstance(by, dict) else by
            who = f", annotator {by}" * (len(done) > 1)
            lines.append(Row(where + who, {**data, **choices}, _beside(regions)))
        if not done:
            lines.append(Row(where, data))
    paths = ["image"] if "image" in fields else list(fields)
    labels = list(controls) or ["choice"]  # empty, as nothing is labelled yet
    found = {"path": paths, "label": labels}
    columns = {meaning: names[0] for meaning, names in found.items() if len(names) == 1}
    return Table(lines, [*fields, *controls], columns, partial=True)


def _cvat(file: Path, text: str) -> Table:
    """Read CVAT for images 1.1: an `image` has a `tag` for each label of it, and shapes.

    https://docs.cvat.ai/docs/other/xml_format. The format has no document type, which could hold
    entities.
    """
    try:
        parser = ElementTree.XMLParser(target=_Plain())  # noqa: S314 - no entities: see _Plain
        parser.feed(text)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        what = f"{file} cannot be read as XML: {error}."
        raise IntakeError(what, hint="export it again") from None
    if root.tag != "annotations":
        raise _unknown(file, "it is XML, but not CVAT's")
    if tracks := len(root.findall("track")):
        what = f"{file} has tracks of a video: {tracks}."
        raise IntakeError(what, hint="export it from CVAT as “CVAT for images 1.1”")
    lines = []
    for number, image in enumerate(root.findall("image")):
        tags = [child.get("label", "") for child in image if child.tag == "tag"]
        shapes = Counter(str(child.tag) for child in image if child.tag != "tag")
        cells = {"name": image.get("name"), "tag": tags}
        lines.append(Row(f"image {image.get('id', number)}", cells, _beside(shapes)))
    return Table(lines, ["name", "tag"], {"path": "name", "label": "tag"}, partial=True)


class _Plain(ElementTree.TreeBuilder):
    """Builds elements, and refuses a document type before anything in it is used."""

    def doctype(self, *_: object) -> None:
        raise ValueError("it has a document type (DOCTYPE), which is not read")


def _imagenet(text: str, synsets: str) -> Table:
    """Read CVAT's ImageNet export without images: each line has an image and its label numbers.

    https://docs.cvat.ai/docs/dataset_management/formats/format-imagenet. A name with a space is in
    quotes, and its ending follows them. An export with images is a folder for each label.
    """
    labels, lines = [line.strip() for line in synsets.splitlines()], []
    for number, line in enumerate(text.splitlines(), 1):
        found = re.fullmatch(r'(?:"([^"]+)"(\S*)|(\S+))((?: +\d{1,9})*) *', line)
        given = [int(word) for word in found[4].split()] if found else []
        problem = "" if found else "is on a line without a name and label numbers"
        if any(one >= len(labels) for one in given):
            problem = "has the number of a label that synsets.txt does not have"
        cells = {
            "name": (found[3] or found[1] + found[2]) if found else line[:200],
            "label": [labels[one] for one in given if not problem],
        }
        if line.strip():
            lines.append(Row(f"line {number}", cells, problem))
    return Table(lines, ["name", "label"], {"path": "name", "label": "label"}, partial=True)


def _coco(file: Path, value: Mapping[str, Any]) -> Table:
    """Read COCO with a category for each image: annotations without box, outline or keypoints.

    https://cocodataset.org/#format-data has no such annotations; Datumaro calls them coco_labels:
    https://openvinotoolkit.github.io/datumaro/stable/docs/data-formats/formats/coco.html
    """
    parts = {}
    for name in ("images", "annotations", "categories"):
        parts[name] = [one for one in _list(value, name) if isinstance(one, dict)]
        if not isinstance(value[name], list) or len(value[name]) != len(parts[name]):
            raise _unknown(file, f"it is like COCO, but its {name} are no list of objects")
    names = {str(one.get("id")): one.get("name") for one in parts["categories"]}
    tags, regions = dict[str, list[Any]](), dict[str, Counter[str]]()
    for annotation in parts["annotations"]:
        image, category = str(annotation.get("image_id")), str(annotation.get("category_id"))
        kinds = [kind for kind in ("bbox", "segmentation", "keypoints") if annotation.get(kind)]
        if not kinds and category in names:
            tags.setdefault(image, []).append(names[category])
        else:
            kind = kinds[0] if kinds else "no category"
            regions.setdefault(image, Counter())[kind] += 1
    lines, ids = [], set[str]()
    for one in parts["images"]:
        ids.add(id_ := str(one.get("id")))
        cells = {"file_name": one.get("file_name"), "category": tags.get(id_)}
        lines.append(Row(f"image {id_}", cells, _beside(regions.get(id_))))
    for id_ in sorted((tags.keys() | regions.keys()) - ids):
        problem = "has annotations, but is none of the images that the file lists"
        lines.append(Row("annotations", {"file_name": f"image_id {id_}"}, problem))
    columns = {"path": "file_name", "label": "category"}
    return Table(lines, list(columns.values()), columns, partial=True)


def _beside(regions: Mapping[str, int] | None) -> str:
    if not regions:
        return ""
    counted = ", ".join(f"{kind} {count}" for kind, count in regions.items())
    return f"has regions ({counted}); only one label of the whole image is taken"


def _list(value: Any, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
