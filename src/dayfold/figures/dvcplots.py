"""The charts of `dvc plots`: the report's specifications, as templates that DVC fills in.

DVC puts its data, its title and the columns that dvc.yaml names in the place of words like
<DVC_METRIC_DATA>. It gives every value as text, and draws with Vega-Lite 5.
"""

from dayfold.figures import charts
from dayfold.figures.charts import Spec
from dayfold.ledger.tables import CohortAccuracy


def templates() -> dict[str, Spec]:
    """Return every template, by the name that dvc.yaml gives it.

    Of several revisions the curves lie in one chart, with other dashes, the matrices side by side,
    and the bars of a class one below the other.
    """
    filled_in = {
        "$schema": charts.SCHEMA.replace("/v6", "/v5"),
        "data": {"values": "<DVC_METRIC_DATA>"},
        "title": "<DVC_METRIC_TITLE>",
        "config": charts.config(charts.PICTURE),
    }
    found = {"cohorts": _cohorts(), "confusion_counts": _confusion_counts(), "bars": _bars()}
    return {name: {**spec, **filled_in} for name, spec in found.items()}


def _cohorts() -> Spec:
    """The forgetting curve."""
    curve = charts.forgetting_curve([CohortAccuracy("", "", 0.0, 0, 0.0, 0.0, 0)])
    for name in ("x", "y", "color"):  # as the data will have it
        curve["encoding"][name]["scale"].pop("domain", None)
    curve["encoding"]["y"]["scale"] = {"zero": False, "nice": True}
    curve["encoding"] |= {
        "strokeDash": {
            "field": "rev",
            "type": "nominal",
            "sort": None,
            "title": "revision",
            "legend": {
                "symbolType": "stroke",
                "symbolStrokeWidth": 2,
                "symbolSize": 300,
                "symbolStrokeColor": charts.PICTURE.muted,
            },
        },
        "detail": [{"field": "rev", "type": "nominal"}],
    }
    curve["layer"][1]["encoding"]["strokeDash"] = {"value": [1, 0]}
    curve["transform"] = [_number(name) for name in ("accuracy", "low", "high")]
    curve.pop("params")
    return curve


def _confusion_counts() -> Spec:
    """The confusion matrix."""
    matrix = charts.confusion_matrix([{"label": "", "predicted": "", "images": 0, "share": 0.0}])
    for name in ("x", "y"):
        matrix["encoding"][name]["scale"].pop("domain", None)
    sides = ("width", "height", "encoding", "layer")
    return {
        **{key: value for key, value in matrix.items() if key not in sides},
        "transform": [
            _number("images"),
            {
                "joinaggregate": [{"op": "sum", "field": "images", "as": "total"}],
                "groupby": ["rev", "label"],
            },
            {"calculate": "datum.images / datum.total", "as": "share"},
        ],
        "facet": {"column": {"field": "rev", "type": "nominal", "sort": None, "title": None}},
        "spec": {key: matrix[key] for key in sides},
    }


def _bars() -> Spec:
    """A bar a class for the measure that is x, with its 95% interval from `x_low` and `x_high`."""
    x, y = "<DVC_METRIC_X>", "<DVC_METRIC_Y>"
    ends = {"value": x, "low": f"{x}_low", "high": f"{x}_high"}
    return {
        "description": "A bar a class, with its 95% interval.",
        "width": 640,
        "height": {"step": 14},
        "transform": [
            *(
                {"calculate": f"toNumber(datum['{column}'])", "as": name}
                for name, column in ends.items()
            ),
            *(_number(name) for name in ("precision", "recall")),
        ],
        "encoding": {
            "x": {
                "field": "value",
                "type": "quantitative",
                "title": "<DVC_METRIC_X_LABEL> and its 95% interval",
                "scale": {"domain": [0, 1]},
                "axis": {"tickCount": 6},
            },
            "y": {
                "field": y,
                "type": "nominal",
                "sort": "ascending",
                "title": "<DVC_METRIC_Y_LABEL>",
                "axis": {"labelLimit": 160},
            },
            "yOffset": {"field": "rev", "type": "nominal", "sort": None},
            "tooltip": [
                {"field": "rev", "type": "nominal", "title": "revision"},
                {"field": y, "type": "nominal", "title": "<DVC_METRIC_Y_LABEL>"},
                *(charts.told(name) for name in ("precision", "recall")),
                {**charts.told("f1"), "field": "value", "title": "<DVC_METRIC_X_LABEL>"},
                *(charts.told(name) for name in ("low", "high")),
                {"field": "support", "type": "nominal", "title": charts.MEASURES["images"]},
            ],
        },
        "layer": [
            {
                "mark": {"type": "bar", "cornerRadiusEnd": 2, "opacity": 0.8},
                "encoding": {"color": "<DVC_METRIC_COLOR>"},
            },
            {
                "mark": {"type": "rule", "color": charts.PICTURE.ink, "strokeWidth": 1.5},
                "encoding": {
                    "x": {"field": "low", "type": "quantitative"},
                    "x2": {"field": "high"},
                },
            },
        ],
    }


def _number(name: str) -> Spec:
    return {"calculate": f"toNumber(datum['{name}'])", "as": name}
