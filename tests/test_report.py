"""The report in a headless Chromium: drawn, usable, asking for nothing, made of recorded facts."""

import json
import re

import pytest
from PIL import Image

import histories
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.figures import day as days_of
from dayfold.figures.card import card
from dayfold.figures.report import page, summary
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.corrections import Correction
from dayfold.ledger.tables import Evaluation, Flip, Unknown
from dayfold.project import vcs

HOSTILE = "<script>alert(1)<script>"
LABELS = ("</script><img src=x onerror=alert(2)>", "{{ 7 * 7 }}", HOSTILE)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report of the last of four days, with classes named as an attacker would."""
    root = tmp_path_factory.mktemp("report") / "scans"
    project = histories.write_history(root, days=histories.dates(4), labels=LABELS, files=True)
    return page.write(days_of.read(project, None))


@pytest.fixture
def shown(chromium, written):
    return look(chromium, written)


def look(chromium, path, width=1280):
    """Open a page."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    chromium.get(path.as_uri())
    return chromium


def requested(chromium):
    """The addresses that were asked for since the page was opened, data URIs left out."""
    said = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [one for one in said if one["method"] == "Network.requestWillBeSent"]
    urls = [one["params"]["request"]["url"] for one in asked]
    return [url for url in urls if not url.startswith("data:")]


def find(chromium, selector):
    from selenium.webdriver.common.by import By

    return chromium.find_elements(By.CSS_SELECTOR, selector)


def test_the_pages_draw_every_chart_without_an_error_and_ask_for_nothing_else(chromium, written):
    for path in (written.with_name("index.html"), written):
        assert path.stat().st_size < 200_000
        shown = look(chromium, path)
        assert requested(shown) == [path.as_uri()]
        assert shown.get_log("browser") == []
        # A line a cohort; 4 + 3 + 2 + 1 points of theirs.
        assert len(find(shown, "svg[aria-label^='Accuracy'] .series")) == 4
        assert len(find(shown, "svg[aria-label^='Accuracy'] circle")) == 10
    assert len(find(shown, "svg[aria-label^='F1'] .series")) == 3
    filled = "return [...document.querySelectorAll(arguments[0])].filter((td) => td.title).length"
    for title, cells in (("The accuracy matrix", 10), ("Images of each class and day", 9)):
        assert shown.execute_script(filled, f"[aria-label='{title}'] td") == cells


def test_names_from_the_data_are_text_and_never_run(shown):
    from selenium.common.exceptions import NoAlertPresentException

    heads = [one.get_attribute("textContent") for one in find(shown, "tbody th")]
    lines = {one.get_attribute("data-series") for one in find(shown, "svg .series")}
    assert set(LABELS) <= {*heads} & lines
    assert find(shown, "main script, img[onerror]") == []
    with pytest.raises(NoAlertPresentException):
        _ = shown.switch_to.alert.text


def test_tables_are_sorted_by_click_and_keyboard_both_ways_what_is_undefined_last(shown):
    from selenium.webdriver.common.keys import Keys

    def column(number):
        cells = find(shown, f"[aria-label='Classes today'] tbody td:nth-child({number})")
        return [cell.text.split()[0] for cell in cells]

    head = find(shown, "[aria-label='Classes today'] thead th:nth-child(3)")[0]
    button = find(head, "button")[0]
    assert head.text.startswith("F1")
    assert head.get_attribute("aria-sort") is None
    button.click()
    rising = column(3)
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert column(3) == rising[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    # Of forgetting: the new class has none.
    button = find(shown, "[aria-label='Classes today'] thead th:nth-child(7) button")[0]
    for _ in range(2):
        button.click()
        assert column(7).index(page.UNDEFINED) == 2


@pytest.mark.parametrize("name", ["", "index.html"])
def test_whatever_can_be_used_or_looked_at_has_an_accessible_name(chromium, written, name):
    shown = look(chromium, written.with_name(name or written.name))
    nodes = shown.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    named = ("button", "link", "image", "img", "region", "heading")
    assert [role for role, name in names if role in named and not name] == []
    roles = {role for role, _ in names}
    assert {"button", "link", "region", "heading", "banner", "main", "contentinfo"} <= roles


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_screen_and_no_note_is_cut(chromium, written, width):
    for path in (written, written.with_name("index.html")):
        shown = look(chromium, path, width)
        assert shown.execute_script("return document.documentElement.scrollWidth") <= width
        cut = "return [...document.querySelectorAll('.scroll:has(.note)')]"
        cut += ".filter((one) => one.scrollWidth > one.clientWidth).length"
        assert width == 400 or shown.execute_script(cut) == 0


def luminance(text):
    """That of a colour as CSS computes it (WCAG 2.2)."""
    parts = [float(part) for part in re.findall(r"[\d.]+", text)[:3]]
    values = parts if text.startswith("color(") else [part / 255 for part in parts]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(shown, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    of = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    ground = luminance(shown.execute_script(of, "body", "backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    for place in ("body", ".quiet", "summary", ".verdict", "tbody th", "svg"):
        text = luminance(shown.execute_script(of, place, "fill" if place == "svg" else "color"))
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5, place


def test_a_hundred_days_are_small_pages(chromium, tmp_path):
    labels = [f"class {number:02}" for number in range(14)]
    days = histories.dates(100)
    project = histories.write_history(tmp_path / "long", days=days, labels=labels, files=False)
    path = page.write(days_of.read(project, None))
    assert path.stat().st_size < 3_000_000
    shown = look(chromium, path)
    assert shown.get_log("browser") == []
    # So many classes are drawn a few at a time.
    assert len(find(shown, "svg[aria-label^='F1'] .series")) == 10
    shown = look(chromium, path.with_name("index.html"))
    rows = [one.text for one in find(shown, "[aria-label='Every day'] tbody tr")]
    assert [row.split()[0] for row in rows] == list(reversed(days))
    (link,) = find(shown, "[aria-label='Every day'] a")
    assert link.get_attribute("href") == path.as_uri()


def test_what_is_not_there_is_said_and_never_fatal(chromium, tmp_path):
    days = histories.dates(2)
    project = histories.write_history(tmp_path / "torn", days=days, labels=LABELS, files=True)
    one, two, three, *_ = tables.read(project.plot("flips"), Flip)["path"].to_list()
    (project.root / one).unlink()
    (project.root / two).write_bytes(b"no image")
    image = manifest.history(project, days[-1]).images.filter(path=three)["image"].item()
    corrections.write(project, "2030-01-01", [Correction("withdraw", image, "", "consent")])
    text = page.write(days_of.read(project, None)).read_text()
    for why in (
        f"not here: {vcs.TO_FETCH}",
        "not the bytes that the manifest pins",
        "withdrawn since",
    ):
        assert why in text
    for path in (project.predictions, project.gate(days[-1])):
        path.unlink()
    for name in ("flips", "near_duplicates"):
        project.plot(name).unlink()
    shown = look(chromium, page.write(days_of.read(project, None)))
    assert shown.get_log("browser") == []
    said = find(shown, "body")[0].text
    for sentence in (
        "The gate has no record of this day.",
        "data/plots/flips.csv of this day is not here.",
        "data/predictions.csv of this day is not here.",
        "This day was made without a search for near duplicates.",
        "Left out, because not here:",
    ):
        assert sentence in said, sentence
    with pytest.raises(CycleError, match="This project has no day"):
        days_of.read(project, "2031-01-01")


@pytest.mark.parametrize(
    ("worse", "better", "said"),
    [
        (6, 0, "60 test images 6 newly wrong, 0 newly right; worse beyond"),
        (0, 20, "better beyond chance (McNemar, p &lt; 0.001)"),
        (1, 1, "1 newly wrong, 1 newly right; within what chance explains (McNemar, p = 1.000)"),
    ],
)
def test_what_became_of_test_images_is_said_with_what_chance_explains(
    tmp_path, worse, better, said
):
    one, two = histories.dates(2)
    labels = "abcdefgh"  # with two test images a day: enough in all
    project = histories.write_history(tmp_path, days=[one, two], labels=labels, files=False)
    cell = (one, "a", "a", 9)
    tables.write(project.evaluation(one), Evaluation, [(one, *cell, 60, 0.9, None)])
    rows = [
        (two, *cell, 60 - worse, 0.9, 60 - worse - better),
        (two, one, "a", "b", 9, worse, 0.9, worse),
    ]
    tables.write(project.evaluation(two), Evaluation, [row for row in rows if row[5]])
    assert said in page.write(days_of.read(project, None)).read_text()


def test_no_verdict_is_spoken_on_too_few(written):
    text = written.read_text()
    # Forgetting, flips, F1 of three classes, and of the new one.
    assert '<strong class="verdict">Gate: 6 checks not judged.</strong>' in text
    assert text.count("<td>not judged</td>") == 6
    # 3 days of 4 images and one of 6.
    assert "On 18 test images, with 95% intervals" in text
    assert "Too few test images to judge any figure: 18 in all." in text
    assert text.count("<strong>Too few to judge.</strong>") == 5
    table = text.split('aria-label="Classes against yesterday"')[1].split("</table>")[0]
    assert table.count("too few to judge: 8 images") == 2
    assert "chance" not in table
    headline = text.split('<p class="lede">')[1].split("</p>")[0]
    # Of its two test images, the new class had one or both right.
    few = r"F1 \d\.\d{3} \(0\.\d{3} to 1\.000; too few to judge: 2 images\)\. Too few test"
    assert re.search(f"{few} images to judge whether anything got worse: 18 in all", headline)


@pytest.mark.slow
def test_the_report_of_an_earlier_day_is_that_days_and_of_a_real_project(chromium, copy):
    first, second, third = DAYS[:3]
    # `seal` has written the index, and no report.
    shown = look(chromium, copy.report("index"))
    assert shown.get_log("browser") == []
    rows = [one.text.split() for one in find(shown, "[aria-label='Every day'] tbody tr")]
    assert [row[0] for row in rows] == [third, second, first]
    assert len(find(shown, ".cost rect")) == 3
    assert f"data/reports/{second}.html" in copy.dayfold("report", "--day", second)
    shown = look(chromium, copy.report(second))
    assert shown.get_log("browser") == []
    text = find(shown, "body")[0].text
    assert f"day/{second}" in text
    assert f"Against {first}, on the same test images." in text
    assert third not in text
    assert "is not here" not in text
    assert re.search(r"Training samples: \d+\.\d% from today's images", text)
    assert len(find(shown, ".cost rect")) == 2
    picture = copy.root.parent / "curve.png"
    copy.dayfold("report", "--png", str(picture))
    with Image.open(picture) as image:
        assert image.format == "PNG"
    copy.dayfold("report")
    assert f"Against {second}, on the same test images." in copy.report(third).read_text()
    assert copy.git("status", "--porcelain") == ""


@pytest.fixture
def few(tmp_path):
    """Two days of two images a class to test on; the mass came on the second."""
    days, labels = histories.dates(2), ("cyst", "mass")
    return histories.write_history(tmp_path / "few", days=days, labels=labels, files=False)


def test_what_was_unknown_is_not_judged_on_too_few(few):
    counts = [("", 0, 9, 9, 4, None), ("cyst", 0, 9, 9, 4, None), ("mass", 1, 6, 6, 5, 0.97)]
    rows = [Unknown(*one) for one in (*counts, ("", 1, 6, 6, 5, 0.97))]
    tables.write(few.unknown(histories.dates(2)[1]), Unknown, rows)
    assert list(summary.unknown_sentences(days_of.read(few, None))) == [
        "Yesterday's model would have flagged 5 of 6 images of the new class mass (too few to "
        "judge: 6 images).",
        "AUROC of new against known classes: 0.970 (too few to judge: 6 images).",
        "Of 9 images of known classes it called 4 unknown: 44.4% (18.9% to 73.3%). Too few "
        "to judge: 9 images.",
    ]


def test_the_card_says_what_is_too_few_to_judge_and_not_calibrated(few):
    one, two = histories.dates(2)
    rows = [Unknown("", 1, 38, 8, 31, 0.97), Unknown("", 0, 120, 21, 6, None)]
    tables.write(few.unknown(two), Unknown, rows)
    made = {"day": two, "parent": one, "draws": {"today": 3, "all": 4}, "sha256": {}}
    made |= {"images": {"today": 14, "trained": 21, "replayed": 7}, "fingerprint": {}}
    few.provenance.write_text(json.dumps(made))
    labels, lacking = ("cyst", "mass"), "2 validation images"
    metadata = {"classes": labels, "recipe": {"image_size_px": 16}, "not_calibrated": lacking}
    text = card(days_of.read(few, None), labels, metadata, limit=0.25, erased=[])
    for said in (
        "Gate: open (5 checks not judged).",
        "It is softmax(logits), not calibrated: 2 validation images.",
        "its distance is above 0.2500",
        "| images of classes that were new to a day | 38 | 31 |",
        "| images of classes that were known by then | 120 | 6 |",
        "On 6 test images, which no model",
        "- Too few test images to judge any figure: 6 in all.",
    ):
        assert said in text
    rows = [line for line in text.splitlines() if line.startswith(("| cyst |", "| mass |"))]
    assert rows[0].endswith("| too few to judge: 4 images |")
    assert rows[1].endswith("| too few to judge: 2 images |")
    figures = text.split("## Figures")[1].split("## Classes")[0]
    rows = [line for line in figures.splitlines() if re.search(r"\d\.\d{3} to", line)]
    assert len(rows) == 9  # with that of the new class
    assert all(line.endswith(", too few to judge |") for line in rows)
