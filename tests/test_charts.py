"""The charts: one SVG serves the pages and the pictures; `dvc plots` draws the same numbers."""

import json
import re

import pytest
import vl_convert
from PIL import Image

from builders import DAYS
from dayfold.figures import charts
from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy

ONE, TWO, THREE = DAYS[:3]
# All images of the first two days are known for ever, of the third half.
CELLS = [
    CohortAccuracy(day, cohort, 0.5 if cohort == THREE else 1.0, 10, 0.6, 1.0, 0)
    for day in DAYS[:3]
    for cohort in DAYS[:3]
    if cohort <= day
]


def drawn(svg):
    """The points of each series: (x, y), by name."""
    found = re.findall(r'<g class="series" data-series="(.*?)".*?<path d="M(.*?)"', svg)
    return {
        name: [tuple(map(float, point.split())) for point in path.split("L")]
        for name, path in found
    }


def test_equal_lines_are_drawn_side_by_side_and_share_a_label_at_their_end():
    svg = str(charts.forgetting_curve(CELLS))
    series = drawn(svg)
    assert {name: len(points) for name, points in series.items()} == {ONE: 3, TWO: 2, THREE: 1}
    one, two = series[ONE][-1], series[TWO][-1]
    assert one[0] == two[0]
    assert two[1] - one[1] == pytest.approx(charts.APART_PX)
    # Alone, the first line stood at the height between both.
    assert series[ONE][0][1] == pytest.approx((one[1] + two[1]) / 2)
    labels = re.findall(r"<text[^>]*>(<tspan.*?)</text>", svg)
    assert [re.findall(r'data-series="(.*?)"', label) for label in labels] == [[ONE, TWO], [THREE]]


def test_an_axis_has_round_numbers_that_hold_both_ends():
    for ends, marks in (
        ((0.8, 1), [0.8, 0.85, 0.9, 0.95, 1]),
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((0, 37), [0, 10, 20, 30, 40]),
        ((0, 0), [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ):
        assert charts.ticks(*ends) == marks


def test_labels_name_as_many_lines_as_fit_in_a_third_and_count_the_others():
    cells = [CohortAccuracy(DAYS[20], cohort, 0.9, 10, 0.6, 1.0, 0) for cohort in DAYS[:20]]
    svg = str(charts.forgetting_curve(cells))
    (label,) = re.findall(r"<text[^>]*>(<tspan.*?)</text>", svg)
    named = label.count("data-series")
    assert label.endswith(f"+{20 - named}")
    assert 2 < named < 8


def test_policies_are_drawn_as_means_over_seeds(tmp_path):
    cells = [
        PolicyAccuracy(policy, seed, ONE, ONE, accuracy)
        for policy in ("naive", "project")
        for seed, accuracy in ((0, 0.2), (1, 0.6))
    ]
    assert f"{ONE}, {ONE}: 0.4</title>" in charts.forgetting_curve(cells[:2])
    charts.write_policies(tmp_path / "curves.png", cells)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1200  # two side by side


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cohorts", "confusion", "classification"])
def test_dvc_plots_draws_the_same_numbers(three_days, name):
    said = three_days.dvc("plots", "show", f"data/plots/{name}.csv", "--show-vega")
    spec = json.loads(said[said.index("{") :])
    assert spec["spec" if name == "confusion" else "layer"]
    svg = vl_convert.vegalite_to_svg(spec, vl_version="5.20")
    rows = three_days.plot(name).read_text().splitlines()[1:]
    mark = {"cohorts": "point", "confusion": "rect mark", "classification": "bar"}[name]
    assert svg.count(f'aria-roledescription="{mark}"') == len(rows)
