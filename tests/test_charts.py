"""The charts: one specification serves the report, the pictures and `dvc plots`."""

import json

import pytest
import vl_convert
from PIL import Image

from builders import DAYS
from dayfold.figures import charts
from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy

ONE, TWO, THREE = DAYS[:3]
CELLS = [
    CohortAccuracy(day, cohort, 0.9, 10, 0.6, 1.0, 0)
    for day in DAYS[:3]
    for cohort in DAYS[:3]
    if cohort <= day
]


def symbols(svg):
    """How many marks a picture has that stand for a row of the data."""
    return svg.count('aria-roledescription="point"')


def test_the_page_shows_what_the_picture_shows(tmp_path):
    spec = charts.forgetting_curve(CELLS)
    shown = charts.on_page(spec, "cohorts")
    assert shown["data"] == {"name": "cohorts"}
    for key in ("layer", "transform", "params", "height"):
        assert shown[key] == spec[key]
    assert {**shown["encoding"], "color": 0} == {**spec["encoding"], "color": 0}
    assert (
        symbols(vl_convert.vegalite_to_svg({**spec, "config": charts.config(charts.PICTURE)})) == 6
    )
    charts.write_png(spec, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 1200


def test_a_hidden_cohort_is_not_drawn_and_the_others_keep_their_colours():
    spec = charts.forgetting_curve(CELLS)
    spec["params"][0]["value"] = [TWO]
    assert symbols(vl_convert.vegalite_to_svg(spec)) == 4
    assert spec["encoding"]["color"]["scale"]["domain"] == [ONE, TWO, THREE]


def test_policies_are_drawn_as_means_over_seeds():
    cells = [
        PolicyAccuracy(policy, seed, ONE, ONE, accuracy)
        for policy in ("naive", "project")
        for seed, accuracy in ((0, 0.2), (1, 0.6))
    ]
    svg = vl_convert.vegalite_to_svg(charts.policy_curves(cells))
    assert symbols(svg) == 2
    assert "0.4" in svg


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cohorts", "confusion", "classification"])
def test_dvc_plots_draws_the_same_charts(three_days, shell, name):
    said = shell(three_days.root, "dvc", "plots", "show", f"data/plots/{name}.csv", "--show-vega")
    spec = json.loads(said[said.index("{") :])
    assert spec["spec" if name == "confusion" else "layer"]
    svg = vl_convert.vegalite_to_svg(spec, vl_version="5.20")
    rows = three_days.plot(name).read_text().splitlines()[1:]
    mark = {"cohorts": "point", "confusion": "rect mark", "classification": "bar"}[name]
    assert svg.count(f'aria-roledescription="{mark}"') == len(rows)
