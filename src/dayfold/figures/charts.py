"""Charts as Vega-Lite specifications, and their pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy
from dayfold.project.files import write_bytes


def forgetting_curve(cells: Iterable[CohortAccuracy]) -> dict[str, Any]:
    """Return the accuracy of every cohort over the days: one line a cohort, later ones lighter."""
    values = [cell._asdict() for cell in cells]
    lowest = min((value["accuracy"] for value in values), default=0.0)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": "What each day's images are still worth",
            "subtitle": "accuracy on the test images of each day, after training on later days",
            "anchor": "start",
            "subtitleColor": "#666",
        },
        "width": 640,
        "height": 300,
        "background": "white",
        "data": {"values": values},
        "encoding": {
            "x": {
                "field": "day",
                "type": "ordinal",
                "title": "model of",
                "axis": {"labelAngle": 0},
            },
            "y": {
                "field": "accuracy",
                "type": "quantitative",
                "scale": {"domain": [min(0.8, lowest // 0.1 / 10), 1]},
                "axis": {"format": "%"},
                "title": "accuracy",
            },
            "color": {
                "field": "cohort",
                "type": "ordinal",
                "scale": {"scheme": "viridis"},
                "title": "images of",
            },
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}},
            {"mark": {"type": "point", "filled": True, "size": 50, "opacity": 1}},
        ],
        "config": {"font": "sans-serif", "view": {"stroke": None}, "axis": {"gridColor": "#eee"}},
    }


def policy_curves(cells: Iterable[PolicyAccuracy]) -> dict[str, Any]:
    """Return the forgetting curves of several policies side by side, means over their seeds."""
    one = forgetting_curve([])
    values = [cell._asdict() for cell in cells]
    order = list(dict.fromkeys(value["policy"] for value in values))
    y = {**one["encoding"]["y"], "aggregate": "mean", "scale": {"domain": [0, 1]}}
    axis = {**one["encoding"]["x"], "axis": {"labelAngle": -90}}
    return {
        **{key: one[key] for key in ("$schema", "background", "config")},
        "title": one["title"],
        "data": {"values": values},
        "facet": {"field": "policy", "type": "nominal", "sort": order, "title": None},
        "columns": 3,
        "spec": {
            "width": 260,
            "height": 180,
            "encoding": {**one["encoding"], "x": axis, "y": y},
            "layer": one["layer"],
        },
    }


def write_png(specification: dict[str, Any], path: Path) -> None:
    """Draw a specification at twice its size into a PNG file."""
    import vl_convert

    write_bytes(path, vl_convert.vegalite_to_png(specification, scale=2))
