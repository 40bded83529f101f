"""A file of labels of any known tool is checked row by row; what it names is what is checked."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

import tools
from builders import png
from dayfold.errors import IntakeError
from dayfold.ledger.intake import labels
from dayfold.ledger.intake.delivery import Delivery
from tools import BOX, NAMES, SKIPPED, UPLOADED, chosen, coco, cvat, drawn, json_min, tag, task


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "scans"
    for name in ("a/1.png", "a/b/2.png", "3.png"):
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(int(path.stem)))
    return made


def read_file(file, folder, *, may_guess=False, **options):
    delivery = Delivery()
    found = labels.read(file, folder, delivery, **options)
    assert may_guess or not delivery.guess
    return found, delivery


def read(folder, text, encoding="utf-8", **options):
    file = folder.parent / "labels.csv"
    file.write_bytes(text.encode(encoding))
    return read_file(file, folder, **options)


def test_rows_name_the_files_of_any_depth_their_class_and_group(folder):
    name = unicodedata.normalize("NFD", "é.png")
    (folder / name).write_bytes(png(9))
    found, delivery = read(
        folder, "path,label,group\na/1.png,cat,p1\na/b/2.png,dog,\n3.png,cat,p2\né.png,cat,"
    )
    assert [(one.path.relative_to(folder).as_posix(), one.label, one.group) for one in found] == [
        ("a/1.png", "cat", "p1"),
        ("a/b/2.png", "dog", ""),
        ("3.png", "cat", "p2"),
        (name, "cat", ""),
    ]
    assert (delivery.refused, delivery.warned) == ([], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read_and_empty_rows_and_columns_are_nothing(
    folder, encoding, end
):
    lines = ("path,label,,", '"a/1.png","cat, big",,', "3.png, dog ,,", ", ,,", "", ",,,", "")
    found, delivery = read(folder, end.join(lines), encoding)
    assert [(one.place, one.label) for one in found] == [("a/1.png", "cat, big"), ("3.png", "dog")]
    assert delivery.refused == []
    with pytest.raises(IntakeError, match="rows that do not fit"):
        read(folder, "path,label,,\na/1.png,cat,,more\n")


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_table_of_windows_is_read_whatever_separates_its_columns(folder, sign):
    home = f"D:\\{folder.name}\\"
    rows = ("path,label,age", "a\\1.png,cat,3", f'{home}a\\b\\2.png,dog,"3,5"', ".\\3.png,cat,")
    text = "\r\n".join(rows).replace(",", sign).replace(f"3{sign}5", "3,5")
    found, delivery = read(folder, text, columns="path=path,label=label")
    assert [one.place for one in found] == ["a/1.png", "a/b/2.png", "3.png"]
    assert [one.label for one in found] == ["cat", "dog", "cat"]
    assert delivery.refused == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("nothing.png,cat", "is not there"),
        (
            "D:\\Export 1\\a\\b\\2.png,cat",
            "is not there; a/b/2.png is: write paths from the folder",
        ),
        ("D:/Export 1/3.png,cat", "is not there; 3.png is: write paths from the folder on"),
        (".\\9.png,cat", "is not there"),
        ("..\\labels.csv,cat", "is a hidden or system file"),
        ("../scans/3.png,cat", "is no path inside the folder"),
        ("/etc/passwd,cat", "is no path inside the folder"),
        ("//etc/passwd,cat", "is no path inside the folder"),
        (",cat", "is no path inside the folder"),
        ("a/b,cat", "is not a file"),
        ("link.png,cat", "is a link or below one; links are not followed"),
        ("linked/2.png,cat", "is a link or below one; links are not followed"),
        ("a/1.png,", "the label '' is no class name"),
        ("a/1.png,cat/dog", "the label 'cat/dog' is no class name"),
        ("a/1.png,..", "the label '..' is no class name"),
        ('a/1.png,"c\na"', "the label 'c\\\\na' has unprintable letters"),
        ("a/1.png,c\0t", "the label 'c\\\\x00t' has unprintable letters"),
        (".hidden.png,cat", "is a hidden"),
        ("a/Thumbs.db,cat", "is a hidden or system file"),
        ("a/1.png," + "c" * 256, f"the label {'c' * 256!r} is too long for a class name"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_the_others_are_taken(folder, row, reason):
    (folder / "link.png").symlink_to(folder / "3.png")
    (folder / "linked").symlink_to(folder / "a" / "b")
    for clutter in (".hidden.png", "a/Thumbs.db"):
        (folder / clutter).write_bytes(png(4))
    found, delivery = read(folder, f"path,label\n3.png,cat\n{row}\na/b/2.png,cat\n")
    assert [one.place for one in found] == ["3.png", "a/b/2.png"]
    (refused,) = delivery.refused
    assert refused.text.startswith(reason)
    assert "(line " in refused.place


def test_files_that_no_row_names_are_counted_and_the_table_itself_is_none(folder, monkeypatch):
    (folder / ".hidden.png").write_bytes(png(8))
    (folder / "labels.csv").write_text("path,label\n3.png,cat\n")
    monkeypatch.chdir(folder)
    found, delivery = read_file(Path("labels.csv"), folder)
    assert len(found) == 1
    said = "labels.csv does not name 2 files; only named files are taken"
    assert list(map(str, delivery.warned)) == [said]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,label\n3.png,Z\xe4hne\n", "is not UTF-8"),
        ("", "has the columns ''"),
        ("path|label\n3.png|cat\n", r"has the columns 'path\|label'"),
        ("path,reader\n3.png,me\n", "has the columns 'path,reader'"),
        ("path,label\n3.png\n", "rows that do not fit"),
        ("path,label\n3.png,cat,p1\n", "rows that do not fit"),
        ("path,label,label\n3.png,cat,dog\n", "two columns of one name"),
        ('path,label\n"3.png,cat\n', "cannot be read as CSV"),
        ("[1, 2]", "is of no known format"),
        ('{"path": "3.png", "label": ', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("<html></html>", "is of no known format: it is XML, but not CVAT's"),
        ("<annotations><image", "cannot be read as XML"),
        ("PAR1 and so on", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_whole_with_a_way_on(folder, text, reason):
    with pytest.raises(IntakeError, match=reason) as caught:
        read(folder, text, "latin-1")
    assert caught.value.hint


def test_rows_of_one_file_must_agree_and_name_it_alike(folder):
    found, delivery = read(
        folder,
        "path,label,group\n3.png,cat,p\n3.png,cat,p\na/1.png,cat,p\na/1.png,dog,p\n"
        "a/b/2.png,cat,p\na/b/2.png,cat,q\n./3.png,cat,p\n",
    )
    assert found == []
    assert [str(remark) for remark in delivery.refused] == [
        "3.png is meant by '3.png' (line 3) and './3.png' (line 8)",
        "a/1.png is given as 'cat' (line 4) and 'dog' (line 5)",
        "a/b/2.png is given in groups 'p' (line 6) and 'q' (line 7)",
    ]


def test_other_headers_are_guessed_and_asked_about_and_columns_says_what_they_are(folder):
    text = "filename,reader,Choice,patient_id\n3.png,me,cat,p1\n"
    found, delivery = read(folder, text, may_guess=True)
    assert [(one.place, one.label, one.group) for one in found] == [("3.png", "cat", "p1")]
    guess, option = delivery.guess
    assert guess == "labels.csv: path=filename, label=Choice, group=patient_id"
    assert option == "--columns path=filename,label=Choice,group=patient_id"
    text_of_excel = "File Name,Label,Patient ID\n3.png,cat,p1\n"
    (one,), _ = read(folder, text_of_excel, may_guess=True)
    assert one.group == "p1"
    found, _ = read(folder, text, columns="path=filename, label=reader")
    assert [(one.label, one.group) for one in found] == [("me", "")]
    with pytest.raises(IntakeError) as caught:
        read(folder, text, columns="path=file,sort=reader")
    assert len(caught.value.problems) == 2
    with pytest.raises(IntakeError) as caught:
        read(folder, "image,path,label\n1,3.png,cat\n")
    assert caught.value.problems == ["image and path could each be the path"]


def test_a_path_may_begin_above_the_folder(folder):
    above = folder.parent.name
    found, delivery = read(
        folder, f"path,label\n{folder}/3.png,cat\n{above}/scans/a/1.png,cat\nother/3.png,cat\n"
    )
    assert [one.place for one in found] == ["3.png", "a/1.png"]
    text = "is not there; 3.png is: write paths from the folder on"
    assert [remark.text for remark in delivery.refused] == [text]
    # A file that is not there, or a pipe without anybody at its other end.
    os.mkfifo(folder / "pipe")
    for name, reason in (("pipe", "is not a file"), ("nowhere", "cannot be read: No such file")):
        with pytest.raises(IntakeError, match=reason):
            read_file(folder / name, folder)


def test_our_names_of_classes_stand_for_theirs(folder):
    file = folder.parent / "map.csv"
    file.write_text("theirs,ours\nFL,Femur\nfl,Femur\na/b,ab\n")
    found, _ = read(
        folder,
        "path,label\n3.png,FL\na/1.png,Femur\na/b/2.png,a/b\n",
        classes=labels.read_classes(file),
    )
    assert [one.label for one in found] == ["Femur", "Femur", "ab"]
    file.write_text("theirs,ours\nFL,Femur\nFL,Tibia\nx,a/b\n")
    with pytest.raises(IntakeError) as caught:
        labels.read_classes(file)
    assert len(caught.value.problems) == 2
    file.write_text("from,to\n")
    with pytest.raises(IntakeError, match="has the columns 'from,to'"):
        labels.read_classes(file)


@pytest.fixture
def flat(tmp_path):
    return tools.images(tmp_path / "scans")


@pytest.mark.parametrize("name", tools.each(NAMES))
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_of_each_tool_is_read(flat, name, mark):
    data = tools.each(NAMES)[name]
    file = flat.parent / name
    file.write_bytes(data if data.startswith(b"PAR1") else mark + data)
    found, delivery = read_file(file, flat, may_guess=True)
    assert [(one.place, one.label) for one in found] == [
        ("0.png", "cat"),
        ("1.png", "dog"),
        ("2.png", "cat"),
        ("3.png", "dog"),
    ]
    assert (delivery.refused, delivery.warned) == ([], [])


def read_export(flat, value, **options):
    file = flat.parent / "export"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    found, delivery = read_file(file, flat, **options)
    taken = [(one.place, one.label) for one in found]
    return taken, list(map(str, delivery.refused)), list(map(str, delivery.warned))


def test_of_label_studio_annotators_agree_or_are_refused_by_name_and_the_rest_is_left(flat):
    tasks = [
        task(1, f"{UPLOADED}0.png", chosen("cat"), chosen("cat"), SKIPPED),
        task(2, f"{UPLOADED}1.png", chosen("cat"), chosen("dog")),
        task(3, f"{UPLOADED}2.png", SKIPPED),
        task(4, f"{UPLOADED}3.png"),
    ]
    tasks[1]["annotations"][1]["completed_by"] = {"id": 5, "email": "b@example.org"}
    taken, refused, warned = read_export(flat, tasks)
    assert taken == [("0.png", "cat")]
    assert refused == [
        "1.png is given as 'cat' (task 2, annotator 1) and 'dog' (task 2, annotator b@example.org)"
    ]
    assert warned == ["export has 2 images without a label (2.png, 3.png); left for later"]


REGION = "has regions ({}); only one label of the whole image is taken"
TWO_LABELS = "has 2 labels ('cat', 'dog'); an image can have one"


def test_of_label_studio_several_labels_and_regions_are_refused_with_their_count(flat):
    both = {"result": chosen("cat")["result"] + drawn(2)["result"]}
    tasks = [
        task(1, f"{UPLOADED}0.png", chosen("cat", "dog")),
        task(2, f"{UPLOADED}1.png", drawn(3)),
        task(3, f"{UPLOADED}2.png", both),
        task(4, f"{UPLOADED}3.png", chosen("cat"), drawn(1)),
    ]
    taken, refused, warned = read_export(flat, tasks)
    assert (taken, warned) == ([], [])
    regions = [REGION.format(f"rectanglelabels {count}") for count in (3, 2, 1)]
    assert [line.partition(") ")[2] for line in refused] == [TWO_LABELS, *regions]
    assert refused[0].startswith(f"{UPLOADED}0.png (task 1) ")


COLUMNS = {"columns": "path=image,label=choice"}
MIN_BOX = {"x": 1, "y": 1, "rectanglelabels": ["Moon"], "original_width": 8}
# Of every other tool: a cat, a cat or dog, a cat with regions, an image without a label.
JSON_MIN = [
    json_min(1, f"{UPLOADED}0.png", choice="cat"),
    json_min(1, f"{UPLOADED}0.png", choice="cat"),
    json_min(2, f"{UPLOADED}1.png", choice={"choices": ["cat", "dog"]}),
    json_min(3, f"{UPLOADED}2.png", choice="cat", label=[MIN_BOX, MIN_BOX]),
    json_min(4, f"{UPLOADED}3.png"),
]
CSV = (
    "image,id,choice,annotation_id,label\n0.png,1,cat,1,\n"
    """1.png,2,"{""choices"": [""cat"", ""dog""]}",2,\n"""
    """2.png,3,cat,3,"[{""x"": 1, ""rectanglelabels"": [""Moon""]}]"\n3.png,4,,4,\n"""
)
CVAT = (
    ("0.png", tag("cat")),
    ("1.png", tag("cat") + tag("dog")),
    ("2.png", tag("cat") + BOX * 2),
    ("3.png", ""),
)
COCO = [(1, 1, {"bbox": [], "segmentation": []}), (2, 1, {}), (2, 2, {"attributes": {}})]
COCO += [(3, 1, {"bbox": [0, 0, 4, 4]}), (3, 9, {}), (7, 1, {})]


@pytest.mark.parametrize(
    ("export", "options", "regions"),
    [
        (JSON_MIN, COLUMNS, "label 2"),
        (CSV, COLUMNS, "label 1"),
        (cvat(*CVAT), {}, "box 2"),
        (coco(NAMES, COCO), {}, "bbox 1, no category 1"),
    ],
)
def test_of_other_tools_too(flat, export, options, regions):
    taken, refused, warned = read_export(flat, export, **options)
    assert taken == [("0.png", "cat")]
    assert [line.partition(") ")[2] for line in refused[-2:]] == [
        TWO_LABELS,
        REGION.format(regions),
    ]
    assert "1.png (" in refused[-2]
    assert "2.png (" in refused[-1]
    strangers = ["is none of the images that the file lists" in line for line in refused[:-2]]
    assert strangers == [True] * ("category" in regions)
    assert warned == ["export has 1 image without a label (3.png); left for later"]


def test_a_queue_that_nobody_has_labelled_gives_no_label_to_anything(flat):
    made = {"model_version": "1", "score": 0.9, **chosen("cat")}
    tasks = [{"data": {"image": f"/data/local-files/?d={n}.png"}} for n in (0, 1)]
    queues = [[{**one, "predictions": [made]} for one in tasks]]
    queues.append(
        "path,label,suggested,confidence,reason\n0.png,,cat,0.9,sure\n1.png,,cat,0.9,sure\n"
    )
    for value in queues:
        taken, refused, warned = read_export(flat, value)
        assert (taken, refused) == ([], [])
        assert "has 2 images without a label (0.png, 1.png); left for later" in warned[-1]


def test_two_controls_of_label_studio_are_told_apart_by_columns(flat):
    result = chosen("cat", control="view")["result"] + chosen("sharp", control="quality")["result"]
    data = {"image": f"{UPLOADED}0.png", "patient": 7}
    tasks = [task(1, "0.png", {"result": result}, data=data)]
    with pytest.raises(IntakeError, match="has the columns 'image,patient,view,quality'"):
        read_export(flat, tasks)
    columns = "label=quality,group=patient"
    found, _ = read_file(flat.parent / "export", flat, columns=columns)
    assert [(one.place, one.label, one.group) for one in found] == [("0.png", "sharp", "7")]


@pytest.mark.parametrize(
    "path",
    [
        "/data/upload/7/0f3a91bc-a%20b%2B.png",
        "/data/upload/7/a%20b+.png",
        "http://localhost:8080/data/upload/7/0f3a91bc-a%20b+.png",
        "/data/local-files/?d=a%20b%2B.png",
        "/data/local-files/?d=scans/a b+.png",
        "http://localhost:8080/data/local-files/?d=scans/a%20b+.png",
        "s3://bucket/scans/a%20b+.png",
    ],
)
def test_paths_of_label_studio_are_urls(flat, path):
    (flat / "a b+.png").write_bytes(png(9))
    assert read_export(flat, [task(1, path, chosen("cat"))])[0] == [("a b+.png", "cat")]


@pytest.mark.parametrize(
    "path",
    [
        "/data/local-files/?d=../scans/0.png",
        "/data/local-files/?d=%2e%2e/scans/0.png",
        "/data/upload/7/0f3a91bc-..%2f0.png",
        "http://[/0.png",
        "/data/local-files/?d=other/0.png",
        "/data/upload/7/nothex12-0.png",
        "\ud800",
        "a\0b",
        "",
    ],
)
def test_no_path_leads_out_of_the_folder_and_none_is_found_by_its_name_alone(flat, path):
    taken, refused, _ = read_export(flat, [task(1, path, chosen("cat"))])
    assert taken == [] or path.endswith("..%2f0.png")
    assert len(taken) + len(refused) == 1


def test_a_url_that_may_mean_two_files_and_two_uploads_of_one_name_are_refused(flat):
    tasks = [task(n, f"/data/upload/7/{n:08x}-0.png", chosen("cat")) for n in (1, 2)]
    taken, refused, _ = read_export(flat, tasks)
    assert taken == []
    assert "0.png is meant by '/data/upload/7/00000001-0.png' (task 1) and" in refused[0]
    (flat / "scans").mkdir()
    (flat / "scans" / "0.png").write_bytes(png(9))
    one = task(1, "/data/local-files/?d=scans/0.png", chosen("cat"))
    taken, refused, _ = read_export(flat, [one])
    assert taken == []
    assert "may be 'scans/0.png' or '0.png'" in refused[0]
    found, _ = read(flat, "path,label\nscans/0.png,cat\n")
    assert [one.place for one in found] == ["scans/0.png"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]>\n<annotations>&x;</annotations>', "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "document type"),
        ("<annotations>&x;</annotations>", "undefined entity"),
        ("<annotations><track id='0'/></annotations>", "has tracks of a video: 1"),
    ],
)
def test_xml_with_entities_and_cvat_s_videos_are_refused(flat, text, reason):
    with pytest.raises(IntakeError, match=reason):
        read_export(flat, text)


def test_of_cvat_s_imagenet_text_names_with_spaces_are_read_and_numbers_checked(flat):
    (flat / "a b.png").write_bytes(png(9))
    file = flat.parent / "default.txt"
    file.write_text('"a b".png 1\n0.png 0 1\n1.png 7\n2.png\n3.png cat\n')
    found, delivery = read_file(file, flat)
    assert [(one.place, one.label) for one in found] == [("a b.png", "dog")]
    assert [remark.text for remark in delivery.refused] == [
        "is on a line without a name and label numbers",
        "has 2 labels ('cat', 'dog'); an image can have one",
        "has the number of a label that synsets.txt does not have",
    ]
    assert "without a label (2.png)" in delivery.warned[-1].text


def test_labels_that_are_whole_numbers_are_their_figures_and_others_refused(flat):
    lines = [{"file_name": f"{n}.png", "label": cell} for n, cell in enumerate((3, True, 0.5))]
    text = "\n".join(map(json.dumps, [*lines, {"file_name": "3.png"}]))
    taken, refused, _ = read_export(flat, text)
    assert taken == [("0.png", "3")]
    said = "has a label that is neither text nor a whole number"
    assert [said in line for line in refused[:2]] == [True, True]
    assert "the label '' is no class name" in refused[2]
    # Of Parquet only columns of text and numbers count.
    file = flat.parent / "labels.parquet"
    file.write_bytes(tools.parquet(image=[{"bytes": b"", "path": "0.png"}], label=["cat"]))
    with pytest.raises(IntakeError, match="has the columns 'label'"):
        read_file(file, flat)
    file.write_bytes(tools.parquet(image=["0.png"], label=[4], group=[""]))
    found, _ = read_file(file, flat, columns="path=image,label=label,group=group")
    assert [(one.label, one.group) for one in found] == [("4", "")]
