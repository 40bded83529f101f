"""The report in a headless Chromium: drawn, usable, asking for nothing, made of recorded facts."""

import json
import re
import shutil
import subprocess
import time

import pytest
from PIL import Image

import histories
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.figures import log
from dayfold.figures.card import card
from dayfold.figures.evidence import Evidence
from dayfold.figures.report import page
from dayfold.figures.report.day import Day, changed_params
from dayfold.figures.report.summary import _of_worst
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.corrections import Correction
from dayfold.ledger.tables import Evaluation, Flip
from dayfold.project import params as params_file

HOSTILE = "<script>alert(1)<script>"
LABELS = ("</script><img src=x onerror=alert(2)>", "{{ 7 * 7 }}", HOSTILE)
DRAWN = """
const places = [...document.querySelectorAll("[data-chart]")];
return places.length > 0 && places.every((place) => place.dataset.drawn === "yes");
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report of the last of four days, with classes named as an attacker would."""
    root = tmp_path_factory.mktemp("report") / "scans"
    days = histories.dates(4)
    project = histories.write_history(root, days=days, labels=LABELS, files=True)
    return page.write(project, None, forced={})


@pytest.fixture
def shown(chromium, written):
    return look(chromium, written)


def look(chromium, path, width=1280):
    """Open a page, and wait until all of its charts are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    still = {"media": "", "features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    chromium.get(path.as_uri())
    WebDriverWait(chromium, 120).until(lambda driver: driver.execute_script(DRAWN))
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


def test_the_page_draws_every_chart_without_an_error_and_asks_for_nothing_else(shown, written):
    assert requested(shown) == [written.as_uri()]
    assert shown.get_log("browser") == []
    marks = "return [...document.querySelectorAll('[data-chart]')].map((place) => "
    marks += "[place.dataset.chart, place.querySelectorAll('svg [role=graphics-symbol]').length])"
    drawn = dict(shown.execute_script(marks))
    # 4 + 3 + 2 + 1 cells of a curve and of the matrix; two old classes on 4 days, a new one on 1.
    assert drawn["matrix"] >= 10
    assert drawn["curve"] >= 10
    assert drawn["classes"] >= 9
    assert drawn["arrivals"] >= 9
    assert {"confusion", "policy-naive", "policy-cumulative"} <= set(drawn)
    assert all(drawn.values())


def test_names_from_the_data_are_text_and_never_run(shown):
    for label in LABELS:
        heads = [one.get_attribute("textContent") for one in find(shown, "tbody th")]
        assert label in heads
        legend = [one.text for one in find(shown, "[data-legend~=classes] [data-series]")]
        assert label in legend
    assert shown.execute_script("return document.querySelectorAll('main script').length") == 0
    assert find(shown, "img[onerror]") == []
    drawn = shown.execute_script(
        "return document.querySelector('[data-chart=confusion]').innerHTML"
    )
    assert "&lt;script&gt;" in drawn
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        _ = shown.switch_to.alert.text


def test_tables_are_sorted_by_a_click_and_by_the_keyboard_both_ways(shown):
    from selenium.webdriver.common.keys import Keys

    table = "[aria-label='Classes today']"

    def column():
        cells = find(shown, f"{table} tbody td:nth-of-type(2)")
        return [float(cell.text) for cell in cells]

    button = find(shown, f"{table} thead th:nth-of-type(3) button")[0]
    head = find(shown, f"{table} thead th:nth-of-type(3)")[0]
    assert head.text.startswith("F1")
    assert head.get_attribute("aria-sort") is None
    button.click()
    rising = column()
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert column() == rising[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.SPACE)
    assert column() == rising


def test_undefined_figures_stay_last_whichever_way_a_table_is_sorted(shown):
    summary = next(one for one in find(shown, "summary") if one.text == "All figures of the day")
    summary.click()
    table = "[aria-label='All figures of the day']"
    button = find(shown, f"{table} thead th:nth-of-type(3) button")[0]
    for _ in range(2):
        button.click()
        cells = [one.text for one in find(shown, f"{table} tbody td:nth-of-type(2)")]
        undefined = cells.count(page.UNDEFINED)
        assert 0 < undefined < len(cells)
        assert cells[-undefined:] == [page.UNDEFINED] * undefined


def test_whatever_can_be_used_or_looked_at_has_an_accessible_name(shown):
    nodes = shown.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = ("button", "combobox", "link", "image", "img", "region", "figure", "heading")
    roles = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in named
    ]
    # The marks that a chart is drawn of are told by the chart's own name.
    assert [role for role, name in roles if not name] == []
    assert {"button", "combobox", "link", "region", "heading"} <= {role for role, _ in roles}
    landmarks = {node["role"]["value"] for node in nodes if not node["ignored"]}
    assert len(find(shown, "fieldset")) == len(find(shown, "fieldset > legend:first-child"))
    assert {"banner", "navigation", "main", "contentinfo"} <= landmarks


def test_a_legend_takes_lines_away_and_brings_them_back(shown):
    legend = "[data-legend~=curve]"
    points = (
        "return document.querySelectorAll('[data-chart=curve] path[role=graphics-symbol]').length"
    )

    def drawn(number):
        from selenium.webdriver.support.ui import WebDriverWait

        waits = WebDriverWait(shown, 20)
        return waits.until(lambda driver: driver.execute_script(points) == number)

    whole = shown.execute_script(points)
    first, *_, last = find(shown, f"{legend} [data-series]")
    last.click()
    assert last.get_attribute("aria-pressed") == "false"
    assert drawn(whole - 2)  # the youngest cohort: a line and its only point
    find(shown, f"{legend} [data-all=false]")[0].click()
    assert drawn(0)
    first.click()
    assert drawn(5)  # the oldest cohort: a line and its four points
    find(shown, f"{legend} [data-all=true]")[0].click()
    assert drawn(whole)


def test_another_measure_of_the_classes_is_drawn_when_it_is_chosen(shown):
    from selenium.webdriver.support.ui import Select, WebDriverWait

    labels = (
        "return [...document.querySelectorAll('[data-chart=classes] svg .role-axis-label text')]"
    )
    labels += ".map((text) => text.textContent)"
    before = shown.execute_script(labels)
    Select(find(shown, "[data-measure]")[0]).select_by_visible_text("test images")
    WebDriverWait(shown, 20).until(lambda driver: driver.execute_script(labels) != before)
    # Two test images of a class and day, over four days.
    assert "8" in shown.execute_script(labels)


def test_what_is_hovered_is_told(shown):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    cell = find(shown, "[data-chart=matrix] path[role=graphics-symbol]")[0]
    shown.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", cell
    )
    ActionChains(shown).move_to_element(cell).perform()
    told = WebDriverWait(shown, 20).until(
        lambda driver: driver.execute_script(
            "return document.querySelector('#vg-tooltip-element.visible')?.textContent"
        )
    )
    assert "model of" in told
    assert "images of" in told


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(chromium, written, width):
    shown = look(chromium, written, width)
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width


def channels(text):
    """A colour as CSS computes it, as relative luminance (WCAG 2.2)."""
    values = [int(part) / 255 for part in text.strip("rgba()").split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(shown, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    of = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    ground = channels(shown.execute_script(of, "body", "backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    for place in ("body", ".quiet", "summary", ".verdict", "tbody th", "figcaption"):
        text = channels(shown.execute_script(of, place, "color"))
        ratio = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert ratio >= 4.5, place


def test_on_paper_there_is_ink_on_white_and_nothing_to_press(shown):
    dark = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    of = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert shown.execute_script(of, "body", "backgroundColor") == "rgb(255, 255, 255)"
    for place in ("nav", "[data-all]", "[data-copy]"):
        assert shown.execute_script(of, place, "display") == "none"
    after = "return getComputedStyle(document.querySelector('th > button'), '::after').display"
    assert shown.execute_script(after) == "none"
    # Which measure is drawn stays said, but not as something to choose.
    assert shown.execute_script(of, ".choice", "display") != "none"
    assert shown.execute_script(of, ".choice select", "borderStyle") == "none"
    assert shown.execute_script(of, "p", "breakInside") == "avoid"


def test_a_hundred_days_are_one_page_of_a_few_megabytes_in_seconds(chromium, tmp_path):
    labels = [f"class {number:02}" for number in range(20)]
    days = histories.dates(100)
    project = histories.write_history(tmp_path / "long", days=days, labels=labels, files=False)
    began = time.process_time()
    path = page.write(project, None, forced={})
    assert time.process_time() - began < 30
    assert path.stat().st_size < 5_000_000
    shown = look(chromium, path)
    assert shown.get_log("browser") == []
    assert len(find(shown, "[data-legend~=curve] [data-series]")) == 100
    # So many classes are drawn a few at a time.
    pressed = "[data-legend~=classes] [data-series][aria-pressed=true]"
    assert len(find(shown, pressed)) == 10


def test_what_is_not_there_is_said_and_never_fatal(chromium, tmp_path):
    days = histories.dates(2)
    project = histories.write_history(tmp_path / "bare", days=days, labels=LABELS, files=False)
    for path in (project.shares, project.predictions, project.provenance, project.gate(days[-1])):
        path.unlink()
    shutil.rmtree(project.audit(days[-1]).parent)
    shutil.rmtree(project.backtest("runs").parent)
    project.plot("flips").unlink()
    project.plot("near_duplicates").unlink()
    shown = look(chromium, page.write(project, None, forced={}))
    assert shown.get_log("browser") == []
    said = find(shown, "body")[0].text
    for sentence in (
        "The gate has no record of this day.",
        "No backtest yet",
        "data/plots/flips.csv of this day is not here.",
        "data/predictions.csv of this day is not here.",
        "There is no audit of this day; dayfold audit makes one.",
        "This day was made without a search for near duplicates.",
        "The plan of the draws (data/shares.csv) of this day is not here.",
        "The record of how this day was made (data/provenance.json) is not here.",
        "Not here, and so left out:",
    ):
        assert sentence in said, sentence


def test_an_image_that_was_withdrawn_since_is_not_shown(tmp_path):
    days = histories.dates(2)
    project = histories.write_history(tmp_path / "since", days=days, labels=("a", "b"), files=True)
    path = tables.read(project.plot("flips"), Flip)["path"][0]
    image = manifest.history(project, days[-1]).images.filter(path=path)["image"].item()
    assert "withdrawn since" not in page.write(project, None, forced={}).read_text()
    corrections.write(project, "2030-01-01", [Correction("withdraw", image, "", "consent")])
    html = page.write(project, None, forced={}).read_text()
    assert "withdrawn since" in html


def test_a_damaged_or_missing_image_is_named_and_not_shown(tmp_path):
    days = histories.dates(2)
    project = histories.write_history(tmp_path / "torn", days=days, labels=("a", "b"), files=True)
    one, two, *_ = tables.read(project.plot("flips"), Flip)["path"].to_list()
    (project.root / one).unlink()
    (project.root / two).write_bytes(b"no image")
    html = page.write(project, None, forced={}).read_text()
    assert "not here: dvc checkout || dvc pull" in html
    assert "not the bytes that the manifest pins" in html


@pytest.mark.parametrize(
    ("worse", "better", "said"),
    [
        (6, 0, "60 test images: 6 newly wrong, 0 newly right; worse beyond"),
        (0, 20, "better beyond chance (McNemar, p < 0.001)"),
        (1, 1, "1 newly wrong, 1 newly right; within what chance explains (McNemar, p = 1.000)"),
    ],
)
def test_flips_are_said_with_their_direction_and_what_chance_explains(
    tmp_path, worse, better, said
):
    one, two = histories.dates(2)
    labels = "abcdefgh"  # with two test images a day: enough in all
    project = histories.write_history(tmp_path, days=[one, two], labels=labels, files=False)
    cell = (one, "a", "a", 9)
    rows = [(one, *cell, 60, 0.9, None)]
    tables.write(project.evaluation(one), Evaluation, rows)
    rows = [
        (two, *cell, 60 - worse, 0.9, 60 - worse - better),
        (two, one, "a", "b", 9, worse, 0.9, worse),
    ]
    tables.write(project.evaluation(two), Evaluation, [row for row in rows if row[5]])
    html = page.write(project, None, forced={}).read_text()
    assert said.replace("<", "&lt;") in html


def test_screenshots_are_made_for_a_person_to_look_at(chromium, written, repository):
    import base64

    folder = repository / "build" / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for width in (1280, 390):
            look(chromium, written, width)
            colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
            whole = {"format": "png", "captureBeyondViewport": True}
            found = chromium.execute_cdp_cmd("Page.captureScreenshot", whole)["data"]
            picture = folder / f"{scheme}-{width}.png"
            picture.write_bytes(base64.b64decode(found))
            with Image.open(picture) as image:
                assert image.width in (width, width - 15)  # less its scroll bar
                assert image.height > 3000


def test_the_headline_names_the_new_class_and_how_it_did(written):
    html = written.read_text()
    headline = html.split('<p class="lede">')[1].split("</p>")[0]
    # Of its two test images, the new class had one or both right: far too few.
    assert re.search(
        r": F1 \d\.\d{3} \(0\.\d{3} to 1\.000; too few to judge: 2 images\) on", headline
    )
    # 3 days of 4 images and one of 6: 18 in all.
    assert "whether anything got worse is too few to judge: 18 images" in headline


def test_no_verdict_is_spoken_on_too_few(written):
    html = written.read_text()
    # Forgetting, flips, F1 of three classes, and of the new one.
    assert '<span class="verdict">Gate: not judged 6</span>' in html
    assert html.count("<td>not judged</td>") == 6
    assert "On 18 test images, with 95% intervals" in html
    assert "Too few test images to judge any figure: 18 in all." in html
    numbers = html.split('<ul class="numbers">')[1].split("</ul>")[0]
    assert numbers.count("<strong>Too few to judge.</strong>") == 5
    table = html.split('aria-label="Classes against yesterday"')[1].split("</table>")[0]
    assert table.count("too few to judge: 8 images") == 2
    assert "chance" not in table


def test_what_stands_beside_a_figure_is_of_the_same_images(written):
    html = written.read_text()
    # Yesterday's model had one of two right in each of 9 cells of a class and day.
    assert "On the same 18 images yesterday" in html
    assert "<p>yesterday " not in html


def test_the_lowest_f1_is_not_named_where_all_are_equal():
    def of(**f1s):
        return _of_worst({label: {"f1": f1, "images": 30} for label, f1 in f1s.items()})

    assert of(cat=1.0, dog=1.0) == "All 2 classes have the same F1."
    assert of(cat=1.0, dog=0.9) == "Class dog has the lowest F1, on 30 test images."
    assert (
        of(cat=0.9, dog=0.9, eel=1.0) == "2 classes have the lowest F1, on 60 test images together."
    )
    assert of(cat=0.9) == "Class cat has the lowest F1, on 30 test images."
    assert of() == "No class has test images yet."


def test_a_day_that_is_none_is_refused_with_the_next_command(tmp_path):
    days = histories.dates(2)
    project = histories.write_history(tmp_path / "few", days=days, labels=("a", "b"), files=False)
    with pytest.raises(CycleError, match="This project has no day"):
        page.write(project, "2031-01-01", forced={})


@pytest.mark.slow
def test_the_report_of_an_earlier_day_is_that_days_and_of_a_real_project(chromium, copy, shell):
    first, second, third = DAYS[:3]
    said = shell(copy.root, "dayfold", "report", "--day", second)
    assert f"data/reports/{second}.html" in said
    shown = look(chromium, copy.report(second))
    assert shown.get_log("browser") == []
    text = find(shown, "body")[0].text
    assert f"day/{second}" in text
    assert f"Against {first}, on the same test images." in text
    assert third not in text.split("Make it again")[0]
    assert f"dayfold reproduce {second}" in text
    assert "is not here" not in text
    shell(copy.root, "dayfold", "report")
    assert f"Against {second}, on the same test images." in copy.report(third).read_text()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=copy.root, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
    picture = copy.root.parent / "curve.png"
    shell(copy.root, "dayfold", "report", "--png", str(picture))
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400


def test_a_param_that_a_day_does_not_have_is_a_dash_and_null_is_null(project, tmp_path):
    known = Evidence("image", {}, {}, all=0, earlier=0)
    day = Day(project, DAYS[1], [], known, True, False, tmp_path)
    day.params_before, day.params = {"gate.a": 0.5, "seed": 0}, {"gate.b": None, "seed": 0}
    changed = [(key, page.shown(then), page.shown(now)) for key, then, now in changed_params(day)]
    assert changed == [("gate.a", "0.5", "\N{EN DASH}"), ("gate.b", "\N{EN DASH}", "null")]


def test_the_card_says_what_is_too_few_to_judge_and_not_calibrated(tmp_path):
    days, labels = histories.dates(2), ("cyst", "mass")
    project = histories.write_history(tmp_path / "few", days=days, labels=labels, files=False)
    now = params_file.read(project.params)
    text = card(
        "scans",
        log.counted(project, now, log.lines(project, now)[-1]),
        manifest.history(project, days[-1]),
        live=labels,
        metadata={
            "classes": labels,
            "recipe": {"image_size_px": 16},
            "not_calibrated": "2 validation images",
        },
        provenance={
            "parent": days[0],
            "draws": {"today": 3, "all": 4},
            "images": {"today": 14, "trained": 21, "replayed": 7},
            "sha256": {},
            "fingerprint": {},
        },
        gate=("open (not judged 5)", []),
    )
    assert "Gate: open (not judged 5)." in text
    assert "It is softmax(logits), not calibrated: 2 validation images." in text
    # Two test images of a class and day; the mass came on the second.
    assert "On 6 test images, which no model" in text
    assert "- Too few test images to judge any figure: 6 in all." in text
    rows = [line for line in text.splitlines() if line.startswith(("| cyst |", "| mass |"))]
    assert rows[0].endswith("| too few to judge: 4 images |")
    assert rows[1].endswith("| too few to judge: 2 images |")
    figures = text.split("## Figures")[1].split("## Classes")[0]
    rows = [line for line in figures.splitlines() if re.search(r"\d\.\d{3} to", line)]
    assert len(rows) == 9  # with that of the new class
    assert all(line.endswith(", too few to judge |") for line in rows)
