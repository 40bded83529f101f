"""Charts as Vega-Lite specifications: without colours, which come with a picture or a page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy
from dayfold.project.files import write_bytes

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
TOLD_APART = 16  # columns of a heat map, up to which its cells are wide enough for a number
# From the oldest to the newest of a series, seen as well on white as on black.
RAMP = ("#4466cc", "#2490a5", "#5a9c58", "#bd8422", "#cb5c4a")


# Columns that hold days, and what the day is that of.
_DAYS = {"day": "model of", "cohort": "images of", "arrived": "arrived on"}


class Colours(NamedTuple):
    """What a chart is drawn with: colours as CSS has them, and the fonts."""

    ground: str | None
    ink: str
    muted: str
    line: str
    accent: str
    on_accent: str
    font: str


PICTURE = Colours("white", "#1c2126", "#5d6670", "#e7eaed", "#2f5fd0", "#ffffff", "sans-serif")
# page.css sets these, for a light screen, a dark one and for paper.
PAGE = Colours(
    None, *(f"var(--{name})" for name in ("ink", "muted", "line", "accent", "on-accent", "font"))
)


def config(colours: Colours) -> Spec:
    """Return the part of a specification that gives it colours."""
    text = {"labelColor": colours.muted, "titleColor": colours.muted, "titleFontWeight": "normal"}
    return {
        "background": colours.ground,
        "font": colours.font,
        "view": {"stroke": None},
        "axis": {
            **text,
            "gridColor": colours.line,
            "domainColor": colours.line,
            "ticks": False,
            "labelPadding": 8,
            "titlePadding": 12,
            "labelFontSize": 11,
            "titleFontSize": 11,
        },
        "axisY": {"domain": False},
        "header": {"labelColor": colours.ink, "labelFontSize": 12},
        "legend": {**text, "symbolType": "circle", "symbolStrokeWidth": 0},
        "title": {
            "color": colours.ink,
            "subtitleColor": colours.muted,
            "anchor": "start",
            "fontSize": 14,
            "offset": 14,
        },
        "rect": {"color": colours.accent},
        "text": {"color": colours.ink, "fontSize": 11},
        "range": {"ordinal": {"scheme": list(RAMP)}},
        "style": {
            "on-weak": {"color": colours.ink},
            "on-strong": {"color": colours.on_accent},
        },
    }


def forgetting_curve(cells: Iterable[CohortAccuracy | PolicyAccuracy]) -> Spec:
    """Return the accuracy of every cohort over the days, a line a cohort."""
    values = [cell._asdict() for cell in cells]
    spec = _lines(values, series="cohort", field="accuracy", title="accuracy")
    spec["encoding"]["y"]["scale"] = {"domain": [_floor(values, 0.8), 1]}
    spec["encoding"]["x"]["title"] = "model of"
    spec["encoding"]["color"]["title"] = "images of"
    spec["description"] = "The accuracy on the test images of each day, by the day of the model."
    spec["title"] = {
        "text": "What each day's images are still worth",
        "subtitle": "accuracy on the test images of each day, after training on later days",
    }
    return spec


def replay_curves(kept: Mapping[str, float], lost: Mapping[str, float], *, what: str) -> Spec:
    """Return the accuracy on the first day's test images by the day of the model, two lines.

    Both map days to accuracy, 0..1; they are equal up to the first day without replay.
    """
    days = sorted(kept)
    parts = [day for day in days if day in lost and lost[day] != kept[day]]
    fork = days[max(0, days.index(parts[0]) - 1) :] if parts else []
    lines = {"with replay": {day: kept[day] for day in days}}
    lines["without replay"] = {day: lost[day] for day in fork}
    values = [
        {"day": day, "accuracy": value, "line": name, "label": f"{name}: {value:.0%}"}
        for name, points in lines.items()
        for day, value in points.items()
    ]
    ends = {"transform": [{"filter": f"datum.day === '{days[-1]}'"}]}
    colour = {
        "field": "line",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(lines), "range": [PICTURE.accent, RAMP[-1]]},
    }
    return {
        "$schema": SCHEMA,
        "description": f"The accuracy on {what}, with replay and without it, by day.",
        "title": {
            "text": f"How much of {what} does the model still know?",
            "subtitle": f"accuracy on their test images of {days[0]}, after training on later days",
        },
        "width": 560,
        "height": 260,
        "data": {"values": values},
        "encoding": {
            "x": {
                "field": "day",
                "type": "ordinal",
                "title": "day of the model",
                "axis": _day_axis(days),
            },
            "y": {
                "field": "accuracy",
                "type": "quantitative",
                "title": "accuracy",
                "scale": {"domain": [0, 1]},
                "axis": {"format": "%", "tickCount": 5},
            },
            "color": colour,
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 3}},
            {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1}},
            {
                **ends,
                "mark": {"type": "text", "align": "left", "dx": 10, "fontSize": 13, "clip": False},
                "encoding": {"text": {"field": "label", "type": "nominal"}},
            },
        ],
    }


def _floor(values: Iterable[Mapping[str, Any]], most: float) -> float:
    """The tenth below the lowest accuracy, but never above `most`."""
    lowest = min((value["accuracy"] for value in values), default=0.0)
    return float(min(most, lowest // 0.1 / 10))


MEASURES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "confidence": "mean confidence",
    "images": "test images",
}


def class_curves(values: Sequence[Mapping[str, Any]]) -> Spec:
    """Return a measure of each class over the days: the one that the param `measure` names."""
    spec = _lines(values, series="class", field="value", title=None)
    spec["params"].append({"name": "measure", "value": "f1"})
    spec["transform"].append({"calculate": "datum[measure]", "as": "value"})
    spec["encoding"]["y"]["scale"] = {"zero": False, "nice": True}
    spec["encoding"]["color"]["scale"]["scheme"] = "tableau10"  # classes have no order
    spec["encoding"]["x"]["title"] = "model of"
    spec["description"] = "F1 and other measures of each class, by the day of the model."
    return spec


def _lines(
    values: Sequence[Mapping[str, Any]], *, series: str, field: str, title: str | None
) -> Spec:
    """Lines over days, a colour a series; the param `hidden` names the series not to draw."""
    days = sorted({value["day"] for value in values})
    many = len(days) > 2 * TOLD_APART
    shown = list(values[0]) if values else []
    return {
        "$schema": SCHEMA,
        "width": 640,
        "height": 300,
        "data": {"values": list(values)},
        "params": [{"name": "hidden", "value": []}],
        "transform": [{"filter": f"indexof(hidden, datum['{series}']) < 0"}],
        "encoding": {
            "x": {
                "field": "day",
                "type": "ordinal",
                "title": None,
                "scale": {"domain": days},
                "axis": _day_axis(days),
            },
            "y": {
                "field": field,
                "type": "quantitative",
                "axis": {"tickCount": 5},
                "title": title,
            },
            "color": {
                "field": series,
                "type": "ordinal",
                "scale": {"domain": sorted({value[series] for value in values})},
                "title": series,
            },
        },
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1 if many else 2, "interpolate": "linear"},
                "encoding": {"opacity": _unless_another_is_pointed_at()},
            },
            {
                "params": [
                    {
                        "name": "at",
                        "select": {"type": "point", "on": "pointerover", "fields": [series]},
                    }
                ],
                "mark": {"type": "point", "filled": True, "size": 14 if many else 46},
                "encoding": {
                    "opacity": _unless_another_is_pointed_at(),
                    "tooltip": [_told(name) for name in shown],
                },
            },
        ],
    }


def _unless_another_is_pointed_at() -> Spec:
    return {"condition": {"param": "at", "value": 1}, "value": 0.15}


def _told(name: str) -> Spec:
    """Return a line of a tooltip: a column under its title, a measure with three digits."""
    titles = {**_DAYS, "low": "95% from", "high": "95% to", "corrected": "corrected later"}
    entry: Spec = {"field": name, "title": titles.get(name, MEASURES.get(name, name))}
    if name in ("accuracy", "low", "high", "f1", "precision", "recall", "confidence", "share"):
        return {**entry, "type": "quantitative", "format": ".3f"}
    return {**entry, "type": "nominal"}


def _day_axis(days: Sequence[str]) -> Spec:
    """Days without what all have in common, their century or their year."""
    common = 5 if len({day[:4] for day in days}) == 1 else 2
    return {
        "labelAngle": 0,
        "labelExpr": f"slice(datum.label, {common})",
        "labelOverlap": "greedy",
        "labelSeparation": 6,
    }


# Of each heat map: its rows and columns, what a cell is as strong as, what is written in it.
_HEAT_MAPS = {
    "matrix": ("day", "cohort", "accuracy", "accuracy"),
    "confusion": ("label", "predicted", "share", "images"),
    "arrivals": ("class", "arrived", "images", "images"),
}


def heat_map(kind: str, values: Sequence[Mapping[str, Any]]) -> Spec:
    """Return one of the heat maps; with too many columns nothing is written in its cells."""
    row, column, strength, written = _HEAT_MAPS[kind]
    least = _floor(values, 0.9) if kind == "matrix" else 0
    most = max((value["images"] for value in values), default=1) if kind == "arrivals" else 1
    rows, columns = (sorted({value[name] for value in values}) for name in (row, column))
    wide = len(columns) > TOLD_APART
    half = f"(datum['{strength}'] - {least}) / {max(most - least, 1e-9)} > 0.7"
    texts: list[Spec] = [
        {
            "transform": [{"filter": condition}],
            "mark": {"type": "text", "style": style},
            "encoding": {
                "text": {
                    "field": written,
                    "type": "quantitative",
                    "format": ",d" if written == "images" else ".3f",
                }
            },
        }
        for condition, style in ((half, "on-strong"), (f"!({half})", "on-weak"))
    ]
    return {
        "$schema": SCHEMA,
        "description": f"A heat map of {strength}: a row a {row}, a column a {column}.",
        "width": 640 if wide else {"step": 52},
        # A width that is fitted asks for a height in all, not for one a row.
        "height": len(rows) * (8 if len(rows) > 3 * TOLD_APART else 14) if wide else {"step": 30},
        "data": {"values": list(values)},
        "encoding": {
            "x": _edge(column, columns, wide=wide),
            "y": _edge(row, rows, wide=wide and len(rows) > TOLD_APART),
            # Of the numbers too: they lie on the cells.
            "tooltip": [_told(name) for name in values[0]] if values else [],
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 0 if wide else 3},
                "encoding": {
                    "opacity": {
                        "field": strength,
                        "type": "quantitative",
                        "scale": {"domain": [least, most], "range": [0.04, 0.9], "clamp": True},
                        "legend": None,
                    },
                },
            },
            *([] if wide else texts),
        ],
    }


def _edge(name: str, names: Sequence[str], *, wide: bool) -> Spec:
    """An axis of a heat map: of days or of classes."""
    axis: Spec = {"grid": False, "domain": False, "labelLimit": 90, "labelOverlap": "greedy"}
    if name in _DAYS:
        axis |= _day_axis(names)
    return {
        "field": name,
        "type": "ordinal",
        "title": _DAYS.get(name, name),
        "scale": {"domain": list(names), "padding": 0 if wide else 0.06},
        "axis": {**axis, "labelAngle": 0},
    }


def policy_curves(cells: Iterable[PolicyAccuracy]) -> Spec:
    """Return the forgetting curves of several policies side by side, means over their seeds."""
    cells = list(cells)
    one = forgetting_curve(cells)
    order = list(dict.fromkeys(cell.policy for cell in cells))
    y = {**one["encoding"]["y"], "aggregate": "mean", "scale": {"domain": [0, 1]}}
    lines, points = ({"mark": layer["mark"]} for layer in one["layer"])
    return {
        **{key: one[key] for key in ("$schema", "description", "title", "data")},
        "facet": {"field": "policy", "type": "nominal", "sort": order, "title": None},
        "columns": 3,
        "spec": {
            "width": 260,
            "height": 180,
            "encoding": {**one["encoding"], "y": y},
            "layer": [lines, points],
        },
    }


def on_page(spec: Spec, source: str) -> Spec:
    """Return a specification as a page shows it: as wide as its place, in the page's colours.

    Its data have the name `source`; the page's own headings and legends stand for the chart's.
    """
    shown = {**spec, "data": {"name": source}, "config": config(PAGE)}
    shown.pop("title", None)
    if not isinstance(spec["width"], dict):
        shown |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    if "color" in spec["encoding"]:
        color = {**spec["encoding"]["color"], "legend": None}
        shown["encoding"] = {**spec["encoding"], "color": color}
    return shown


def beside_others(spec: Spec) -> Spec:
    """Return a page's forgetting curve as one of several side by side, on the same scale."""
    x, y = ({**spec["encoding"][name], "title": None} for name in ("x", "y"))
    y["scale"] = {"domain": [0, 1]}
    return {**spec, "height": 170, "encoding": {**spec["encoding"], "x": x, "y": y}}


def write_png(spec: Spec, path: Path) -> None:
    """Draw a specification at twice its size into a PNG file."""
    import vl_convert

    picture = {**spec, "config": config(PICTURE), "padding": 16}
    write_bytes(path, vl_convert.vegalite_to_png(picture, scale=2))
