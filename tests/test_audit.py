"""The audit: flipped labels come first, groups stay whole, a person's decisions are kept."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from builders import DAYS, make_project, make_trainable, open_day, run_stages
from dayfold.errors import LedgerError
from dayfold.ledger import tables
from dayfold.ledger.tables import Doubt
from dayfold.serve import auditing
from dayfold.serve.auditing import Audit, Doubts

FLIPPED = 0.03


def labelled(rng, images, classes, sure):
    """Labels, and probabilities that are `sure` of the label on average."""
    labels = np.arange(images) % classes
    chances = rng.dirichlet(np.ones(classes), images) * (1 - sure)
    chances[np.arange(images), labels] += sure
    return labels, chances


def test_a_group_is_never_on_both_sides_and_each_class_is_dealt_evenly():
    labels = np.repeat(np.arange(3), 100)
    groups = [f"patient {label}.{number // 4}" for label in range(3) for number in range(100)]
    fold = auditing.folds(labels, groups, DAYS[0])
    parts = {}
    for group, part in zip(groups, fold, strict=True):
        parts.setdefault(group, set()).add(int(part))
    assert all(len(part) == 1 for part in parts.values())
    for label in range(3):
        # 25 groups of 4 a class over 5 parts.
        assert np.bincount(fold[labels == label]).tolist() == [20] * auditing.FOLDS
    # Nor does the deal depend on the order of images.
    turned = auditing.folds(labels[::-1], groups[::-1], DAYS[0])
    assert turned[::-1].tolist() == fold.tolist()


def test_an_image_is_judged_by_what_was_fitted_without_it_or_not_at_all():
    # Noise: only a model that has seen an image could know its label.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 64)).astype(np.float32)
    labels = rng.integers(0, 2, 200)
    fold = np.arange(200) % auditing.FOLDS
    chances, judged = auditing.out_of_sample(features, labels, fold, 2)
    assert judged.all()
    assert (chances.argmax(1) == labels).mean() == pytest.approx(0.5, abs=0.12)
    # A class that stands in one fold only.
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2)
    fold = np.array([*(np.arange(40) % auditing.FOLDS), 3, 3])
    chances, judged = auditing.out_of_sample(rng.normal(size=(42, 4)), labels, fold, 4)
    assert judged.tolist() == [True] * 40 + [False] * 2
    assert (chances[:, 3] == 0).all()


def test_a_wrong_label_is_doubted_but_neither_a_hard_class_as_a_whole_nor_a_single_class():
    labels, chances = labelled(np.random.default_rng(0), 90, 3, sure=0.7)
    chances[5] = [0.05, 0.9, 0.05]
    assert labels[5] == 2
    found = auditing.doubts(chances, labels)
    assert np.flatnonzero(found.doubted).tolist() == [5]
    assert found.suggested[5] == 1
    assert found.score.argmin() == 5
    labels, chances = labelled(np.random.default_rng(0), 90, 3, sure=0.8)
    chances[labels == 2] = [0.15, 0.45, 0.40]
    assert not auditing.doubts(chances, labels).doubted.any()
    for images, classes in ((0, 3), (4, 1)):
        found = auditing.doubts(np.ones((images, classes)), np.zeros(images, dtype=np.int64))
        assert not found.doubted.any()
        assert len(found.score) == images


def test_new_doubts_come_first_then_old_ones_then_the_rest():
    score = np.array([0.1, 0.2, 0.3, 0.0, 0.05])
    doubted = np.array([True, True, True, False, False])
    new = np.array([False, True, True, True, False])
    found = Doubts(score, np.zeros(5, dtype=np.int64), doubted)
    assert auditing.ranking(found, new).tolist() == [1, 2, 0, 3, 4]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A project with all digits, 3% of them under a wrong label, trained; the names of these."""
    from dayfold.stages import replay, snapshot, train, weights

    recipe = {"train__updates": 150, "train__batch_size": 32}
    project = make_trainable(tmp_path_factory.mktemp("noisy") / "project", **recipe)
    open_day(project, DAYS[0])
    digits, rng = load_digits(), np.random.default_rng(0)
    count = len(digits.target)
    wrong = set(rng.choice(count, round(FLIPPED * count), replace=False).tolist())
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        given = (label + rng.integers(1, 10)) % 10 if number in wrong else label
        path = project.images(DAYS[0]) / str(given) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(path)
    run_stages(project, snapshot, weights, replay, train)
    truth = {number: str(digits.target[number]) for number in wrong}
    return project, truth, count


@pytest.mark.slow
def test_four_of_five_flipped_labels_are_among_the_worst_twentieth(noisy):
    project, truth, count = noisy
    top = round(0.05 * count)
    found = auditing.run(project, top=top)
    assert (found.judged, found.skipped, len(found.doubts)) == (count, [], top)
    numbers = [int(re.search(r"(\d+)\.png", doubt.path)[1]) for doubt in found.doubts]
    caught = [number for number in numbers if number in truth]
    assert len(caught) >= 0.8 * len(truth)
    suggested = {n: d.suggested for n, d in zip(numbers, found.doubts, strict=True)}
    right = [number for number in caught if suggested[number] == truth[number]]
    assert len(right) >= 0.9 * len(caught)
    table = tables.read(project.audit(DAYS[0]), Doubt)
    assert table["path"].to_list() == [doubt.path for doubt in found.doubts]


@pytest.mark.slow
def test_without_a_doubt_the_least_certain_are_shown_and_it_is_said(noisy, monkeypatch):
    def certain(chances, labels):
        """Doubts by which no label is counted as wrong."""
        return Doubts(chances[np.arange(len(labels)), labels], chances.argmin(1), labels < 0)

    project, *_ = noisy
    monkeypatch.setattr(auditing, "doubts", certain)
    found = auditing.run(project, top=None)
    assert (found.doubted, len(found.doubts)) == (0, auditing.FEW)
    scores = [doubt.score for doubt in found.doubts]
    assert scores == sorted(scores)
    said = list(auditing.summary(found, project))
    assert said[0] == "No label is doubted. The least certain ones:"
    assert said[1].startswith(found.doubts[0].path)
    assert len(tables.read(project.audit(found.day), Doubt)) == auditing.FEW


@pytest.mark.slow
def test_decisions_are_kept_and_names_are_escaped_on_the_page(noisy):
    project, *_ = noisy
    auditing.run(project, top=3)
    table = tables.read(project.audit(DAYS[0]), Doubt)
    first, *rest = table.rows()
    second, third = rest
    # The third is done: its label is what was decided.
    decided = [(*first[:-1], "<b>keep</b>"), (*second[:-1], "keep"), (*third[:-1], third[2])]
    tables.write(project.audit(DAYS[0]), Doubt, decided)
    found = auditing.run(project, top=1)
    assert [doubt.decision for doubt in found.doubts] == ["<b>keep</b>", "keep"]
    assert tuple(found.doubts[1]) == decided[1]
    auditing.write_page(project, found)
    page = project.audit_page(DAYS[0]).read_text(encoding="utf-8")
    assert "&lt;b&gt;keep&lt;/b&gt;" in page
    assert "<b>keep</b>" not in page
    assert page.count('src="data:image/png;base64,') == 2
    assert '<option value="&lt;b&gt;keep&lt;/b&gt;" selected>' in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    project.audit(DAYS[0]).write_text("path;decision\n")
    with pytest.raises(LedgerError, match="its decisions would be lost"):
        auditing.run(project, top=2)
    project.audit(DAYS[0]).unlink()


@pytest.mark.slow
def test_images_that_are_not_here_are_not_judged_and_counted(copy):
    shutil.rmtree(copy.images(DAYS[1]) / "3")
    said = copy.dayfold("audit", "--top", "4", "--html")
    day = json.loads(copy.provenance.read_bytes())["day"]
    found = re.search(r"images that are not here .*: (\d+)", said)
    assert found
    assert int(found[1]) > 10
    assert len(tables.read(copy.audit(day), Doubt)) == 4
    assert copy.audit_page(day).exists()
    assert "dayfold relabel --from data/audit/" in said
    assert copy.git("status", "--porcelain", "data/audit") == ""


@pytest.mark.slow
def test_what_is_decided_on_the_page_is_saved_as_the_table_of_decisions(chromium, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    project = make_project(tmp_path / "project")
    names = ('=1+1,"2"', "<script>alert(1)</script>", "-none")
    doubts = [
        Doubt("a" * 64, f"data/images/{names[0]}/1.png", names[0], names[1], 0.25, ""),
        Doubt("b" * 64, "data/images/x/2.png", names[1], names[2], 0.5, "keep"),
    ]
    auditing.write_page(project, Audit(DAYS[0], names, doubts, 9, 2, 1, []))
    saving = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", saving)
    chromium.get(project.audit_page(DAYS[0]).as_uri())
    assert chromium.find_element(By.ID, "decided").text == "1 of 2 decided"
    first, second = chromium.find_elements(By.TAG_NAME, "select")
    said = [option.text for option in Select(first).options]
    likely = ["undecided", f"it is {names[1]}", f"keep {names[0]}"]
    assert said == [*likely, "it is -none", "withdraw the image"]
    Select(first).select_by_visible_text("it is -none")
    Select(second).select_by_visible_text("withdraw the image")
    assert chromium.find_element(By.ID, "decided").text == "2 of 2 decided"
    chromium.find_element(By.ID, "save").click()
    saved = tmp_path / f"{DAYS[0]}.csv"
    WebDriverWait(chromium, 20).until(lambda _: saved.exists())
    assert chromium.get_log("browser") == []
    table = tables.read(saved, Doubt)
    assert table["decision"].to_list() == ["'-none", "withdraw"]
    assert table["label"].to_list() == [f"'{names[0]}", names[1]]
    assert table["score"].to_list() == [0.25, 0.5]
