"""What labelling tools write, in the form in which each does: files of labels to be read."""

import io
import json

import polars as pl

from builders import png

UPLOADED = "/data/upload/7/0f3a91bc-"  # what Label Studio puts before the name of an upload


TIMES = {"created_at": "2025-06-01T09:12:40.1Z", "updated_at": "2025-06-01T09:12:40.1Z"}


def task(number, image, *annotations, **more):
    """A task in Label Studio's JSON, as its page Export writes it."""
    made = {**TIMES, "was_cancelled": False, "ground_truth": False, "lead_time": 8.65}
    made |= {"result_count": 0, "task": number, "project": 7}
    return {
        "id": number,
        "annotations": [
            {"id": 100 * number + place, "completed_by": place, **made, **annotation}
            for place, annotation in enumerate(annotations, 1)
        ],
        "file_upload": image.rpartition("/")[2],
        "drafts": [],
        "predictions": [],
        "data": {"image": image},
        "meta": {},
        **TIMES,
        "inner_id": number,
        "total_annotations": len(annotations),
        "cancelled_annotations": 0,
        "project": 7,
        **more,
    }


def chosen(*choices, control="choice"):
    """An annotation with these choices."""
    value = {"choices": list(choices)}
    one = {"id": "qd1jIVAq1h", "type": "choices", "value": value, "origin": "manual"}
    return {"result": [{**one, "to_name": "image", "from_name": control}]}


def drawn(count):
    """An annotation with this many boxes."""
    value = {"x": 10.1, "y": 5.2, "width": 12.4, "height": 10.5, "rectanglelabels": ["Moon"]}
    one = {"id": "Dx_aB91ISN", "type": "rectanglelabels", "value": value, "from_name": "label"}
    return {"result": [{**one, "to_name": "image", "original_width": 128}] * count}


def exported(queue, labels):
    """The tasks of a queue as Label Studio exports them, each accepted or changed by a person.

    It has the predictions by their number only (its issue 9709), and that of the annotation whole.
    """
    tasks = []
    for number, (one, label) in enumerate(zip(queue, labels, strict=True), 1):
        own = {"prediction": (one["predictions"] or [{}])[0], "parent_prediction": 285 + number}
        beside = {"predictions": [285 + number], "data": one["data"]}
        upload = {"file_upload": "8314a79b-queue.json"}
        done = {**chosen(label), **own}
        tasks.append(task(number, one["data"]["image"], done, **beside, **upload))
    return tasks


SKIPPED = {"result": [], "was_cancelled": True}


def json_min(number, image, **more):
    """An annotation in Label Studio's JSON-MIN."""
    return {
        "image": image,
        "id": number,
        "annotator": 1,
        "annotation_id": 100 * number,
        **TIMES,
        "lead_time": 8.65,
        **more,
    }


def cvat(*images):
    """CVAT for images 1.1, of (name, elements within it)."""
    body = "".join(
        f'  <image id="{number}" name="{name}" width="8" height="8">\n{inner}  </image>\n'
        for number, (name, inner) in enumerate(images)
    )
    meta = "<meta><task><id>5</id><name>scans</name><mode>annotation</mode></task></meta>"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  {meta}\n{body}</annotations>\n"
    )


def tag(label):
    return f'    <tag label="{label}" source="manual">\n    </tag>\n'


BOX = """\
    <box label="x" source="manual" occluded="0" xtl="1.00" ytl="1.00" xbr="5.00" ybr="4.00">
    </box>
"""


def coco(images, annotations, categories=("cat", "dog")):
    """COCO of (file name) and (image, category, more), numbered from 1."""
    return json.dumps(
        {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "year": ""},
            "categories": [
                {"id": number, "name": name, "supercategory": ""}
                for number, name in enumerate(categories, 1)
            ],
            "images": [
                {"id": number, "width": 8, "height": 8, "file_name": name, "license": 0}
                for number, name in enumerate(images, 1)
            ],
            "annotations": [
                {"id": number, "image_id": image, "category_id": category, **more}
                for number, (image, category, more) in enumerate(annotations, 1)
            ],
        }
    )


def parquet(**columns):
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def each(names):
    """A file of every format that gives these files the labels cat and dog in turn, by its name."""
    pairs = [(name, ("cat", "dog")[place % 2]) for place, name in enumerate(names)]
    rows = "".join(f"{name},{label}\n" for name, label in pairs)
    tasks = [task(n, f"{UPLOADED}{name}", chosen(label)) for n, (name, label) in enumerate(pairs)]
    local = [
        json_min(n, f"/data/local-files/?d={name}", choice=c) for n, (name, c) in enumerate(pairs)
    ]
    queue = [
        {"data": {"image": f"/data/local-files/?d={name}", "reason": "sure: cat 0.91"}}
        | {"predictions": [{"model_version": "1", "score": 0.91, **chosen("cat")}]}
        for name in names
    ]
    images = [name for name, _ in pairs]
    answers = [(n, ("cat", "dog").index(c) + 1, {}) for n, (_, c) in enumerate(pairs, 1)]
    texts = {
        "labels.csv": f"path,label\n{rows}",
        "metadata.csv": f"file_name,label\n{rows}",
        "metadata.jsonl": "".join(
            json.dumps({"file_name": n, "label": c}) + "\n" for n, c in pairs
        ),
        "label-studio.json": json.dumps(tasks, indent=2),
        "json-min.json": json.dumps(local, indent=2),
        "label-studio.csv": "image,id,choice,annotator,annotation_id\n"
        + "".join(f"{UPLOADED}{name},{n},{c},1,{n}\n" for n, (name, c) in enumerate(pairs)),
        "queue.csv": "path,label,suggested,confidence,reason\n"
        + "".join(f'{name},{c},cat,0.41,"not sure: cat 0.41, dog 0.38"\n' for name, c in pairs),
        "queue.json": json.dumps(exported(queue, [label for _, label in pairs])),
        "annotations.xml": cvat(*((name, tag(label)) for name, label in pairs)),
        "default.txt": "".join(f"{name} {('cat', 'dog').index(label)}\n" for name, label in pairs),
        "coco.json": coco(images, answers),
    }
    found = {name: text.encode() for name, text in texts.items()}
    return found | {"labels.parquet": parquet(path=images, label=[label for _, label in pairs])}


NAMES = [f"{number}.png" for number in range(4)]


def images(folder):
    """Make a folder of four images, with synsets.txt beside it."""
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(png(number))
    (folder.parent / "synsets.txt").write_text("cat\ndog\n")
    return folder


def deliver(folder):
    """Write four images with an export of every tool, and what the page labelling.md names more."""
    names = [f"P{number}_{number}.png" for number in range(4)]
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(png(number))
    for name, data in each(names).items():
        (folder / name).write_bytes(data)
    (folder / "synsets.txt").write_text("cat\ndog\n")
    (folder / "map.csv").write_text("theirs,ours\nCat,cat\n")
    (folder / "other.csv").write_text(f"scan,finding,patient_id\n{names[0]},cat,P0\n")
