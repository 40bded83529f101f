"""Charts as SVG, without a library.

Colours are SVG attributes: the style sheet of a page overrides them, a PNG file keeps them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from markupsafe import Markup

from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy
from dayfold.project.files import write_bytes

# All colours show on white and on black, with a contrast of 3 or more (WCAG 2.2, 1.4.11).
RAMP = ("#4466cc", "#2490a5", "#5a9c58", "#bd8422", "#cb5c4a")  # from the oldest to the newest
PALETTE = (
    *("#4c78d8", "#d0662a", "#2f8f6b", "#c04f96", "#8f7d1c"),
    *("#2490a5", "#d1495b", "#8562cf", "#7c8794", "#a06a4c"),
)
INK, MUTED, LINE = "#1c2126", "#59626c", "#e5e8eb"
LEFT_PX, TOP_PX, BOTTOM_PX = 52, 14, 34  # margins around the lines
LETTER_PX, ROW_PX, TICK_PX = 6.3, 15, 52  # of a letter, a line of text and a day's name
LETTERS = 18  # longest name at the end of a line
SIZE = (760, 320)  # of a chart
MANY = 32  # days above which only the last point of a line is drawn
APART_PX = 3  # between equal lines, if they stay within SPREAD_PX
SPREAD_PX = 12

Curves = Mapping[str, Mapping[str, float]]  # series → day → value

_SVG = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
    'role="img" aria-label="{says}" font-family="sans-serif" font-size="11" fill="{fill}">'
    "{inside}</svg>"
)
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
_RULE = Markup('<path class="rule" d="M{} {:.1f}H{}" stroke="{}"/>')
_POINT = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>')
_SERIES = Markup(
    '<g class="series" data-series="{0}" stroke="{1}" fill="{1}"><path d="M{2}" fill="none" '
    'stroke-width="{3}"><title>{0}</title></path>{4}</g>'
)
_NAME = Markup('<tspan data-series="{}"><tspan fill="{}">\u25cf</tspan> {}\u2002</tspan>')
_BAR = Markup('<rect x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{:.1f}"><title>{}</title></rect>')
_PANEL = Markup(
    '<g transform="translate({} {})"><text y="14" font-size="14" font-weight="bold" fill="{}">{}'
    '</text><g transform="translate(0 24)">{}</g></g>'
)


def ramp(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name, from the first of RAMP to the last."""
    return {
        name: _between(place * (len(RAMP) - 1) / max(1, len(names) - 1))
        for place, name in enumerate(names)
    }


def _between(at: float) -> str:
    one, two = RAMP[int(at)], RAMP[min(int(at) + 1, len(RAMP) - 1)]
    both = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in (one, two)]
    mixed = (round(a + (b - a) * (at % 1)) for a, b in zip(*both, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def palette(names: Iterable[str]) -> dict[str, str]:
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def short(days: Iterable[str]) -> dict[str, str]:
    """Return day → the day without its year or, if the years differ, without its century."""
    days = list(days)
    common = 5 if len({day[:4] for day in days}) == 1 else 2
    return {day: day[common:] for day in days}


def forgetting_curve(
    cells: Iterable[CohortAccuracy | PolicyAccuracy],
    *,
    low: float | None = None,
    size: tuple[int, int] = SIZE,
) -> Markup:
    """Return the accuracy of every cohort over the days, a line for each cohort, as SVG.

    Cells of several seeds are averaged. The axis begins at `low`, by default at `floor`.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.cohort, cell.day)):
        found.setdefault(cell.cohort, {}).setdefault(cell.day, []).append(cell.accuracy)
    curves = {name: {day: fmean(of) for day, of in by.items()} for name, by in found.items()}
    if low is None:
        low = floor(value for points in curves.values() for value in points.values())
    return lines(
        curves,
        says="Accuracy on the test images of each day, by the day of the model",
        colours=ramp(list(curves)),
        ends=(low, 1.0),
        names=short(curves),
        size=size,
    )


def replay_curves(replay: Mapping[str, float], naive: Mapping[str, float]) -> Markup:
    """Return two lines as SVG: the accuracy on one day's test images, with replay and without.

    Both map the model's day to accuracy, 0..1, and are equal until replay ends.
    """
    days = sorted(replay)
    apart = [at for at, day in enumerate(days) if naive.get(day, replay[day]) != replay[day]]
    fork = days[max(0, apart[0] - 1) :] if apart else []
    curves = {"with replay": replay, "no replay": {day: naive[day] for day in fork}}
    curves = {name: points for name, points in curves.items() if points}
    return lines(
        curves,
        says="Accuracy on the first day's test images, with replay and without, by day",
        colours=dict(zip(curves, (RAMP[0], RAMP[-1]), strict=False)),
        ends=(0.0, 1.0),
        names={name: f"{name}: {points[max(points)]:.0%}" for name, points in curves.items()},
    )


def floor(values: Iterable[float]) -> float:
    return min(0.8, math.floor(min(values, default=1.0) * 10) / 10)


def lines(
    curves: Curves,
    *,
    says: str,
    colours: Mapping[str, str],
    ends: tuple[float, float],
    names: Mapping[str, str],
    size: tuple[int, int] = SIZE,
) -> Markup:
    """Return lines over days as SVG, each with its name from `names` at its end.

    The axis covers at least the range `ends`. Equal lines are drawn side by side, as far as there
    is room; lines that end at about the same height share a label.
    """
    days = sorted({day for points in curves.values() for day in points})
    marks, bottom = ticks(*ends), size[1] - BOTTOM_PX
    scale = (bottom - TOP_PX) / (marks[-1] - marks[0])

    def height(value: float) -> float:
        return bottom - (value - marks[0]) * scale

    down = _side_by_side(
        {name: {day: height(value) for day, value in of.items()} for name, of in curves.items()}
    )
    labels, room = _labels(
        {name: of[max(of)] for name, of in down.items()}, colours, names, size[0]
    )
    right = size[0] - room
    step = (right - LEFT_PX) / max(1, len(days))
    across = {day: LEFT_PX + step * (place + 0.5) for place, day in enumerate(days)}
    inside = [_RULE.format(LEFT_PX, height(mark), right, LINE) for mark in marks]
    inside += [_TEXT.format(LEFT_PX - 8, height(mark) + 4, "end", f"{mark:,.6g}") for mark in marks]
    inside += [
        _TEXT.format(across[day], bottom + 20, "middle", name)
        for day, name in list(short(days).items())[:: math.ceil(TICK_PX / step)]
    ]
    first, thick = (-1, 1) if len(days) > MANY else (0, 2)
    for name, points in curves.items():
        at = {day: (across[day], down[name][day]) for day in points}
        dots = [
            _POINT.format(*at[day], f"{name}, {day}: {points[day]:,.4g}")
            for day in list(points)[first:]
        ]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at.values())
        inside.append(_SERIES.format(name, colours[name], path, thick, Markup().join(dots)))
    inside += [_TEXT.format(right + 6, y + 4, "start", text) for y, text in labels]
    return _svg(size, says, inside)


def ticks(low: float, high: float) -> list[float]:
    """Return up to seven round numbers that cover `low` to `high`."""
    span = high - low or 1.0
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * part for part in (0.2, 0.5, 1, 2) if span / (unit * part) <= 5.01)
    first, last = math.floor(low / step + 1e-6), math.ceil((low + span) / step - 1e-6)
    return [round(step * number, 10) for number in range(first, last + 1)]


def _side_by_side(down: Curves) -> dict[str, dict[str, float]]:
    moved = {name: dict(points) for name, points in down.items()}
    equal: dict[tuple[str, int], list[str]] = {}
    for name, points in down.items():
        for day, y in points.items():
            equal.setdefault((day, round(y)), []).append(name)
    for (day, _), names in equal.items():
        apart = min(APART_PX, SPREAD_PX / len(names))
        for place, name in enumerate(names):
            moved[name][day] += (place - (len(names) - 1) / 2) * apart
    return moved


def _labels(
    ends: Mapping[str, float], colours: Mapping[str, str], names: Mapping[str, str], width: int
) -> tuple[list[tuple[float, Markup]], float]:
    # Lines at about the same height share a label of up to a third of the chart.
    groups: list[list[str]] = []
    for name in sorted(names, key=ends.__getitem__):
        if groups and ends[name] - ends[groups[-1][0]] < ROW_PX:
            groups[-1].append(name)
        else:
            groups.append([name])
    cut = {
        name: text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
        for name, text in names.items()
    }
    found, longest = [], 0.0
    for group in groups:
        lengths = list(accumulate(len(cut[name]) + 3 for name in group))
        fits = max(1, sum(length * LETTER_PX < width / 3 for length in lengths))
        text = Markup().join(_NAME.format(name, colours[name], cut[name]) for name in group[:fits])
        text += f"+{len(group) - fits}" * (len(group) > fits)
        longest = max(longest, lengths[fits - 1] + 3 * (len(group) > fits))
        found.append((ends[group[0]], text))
    return found, 12 + longest * LETTER_PX


def bars(values: Mapping[str, float]) -> Markup:
    """Return a sparkline as SVG: a bar for each day, from 0 to the largest value."""
    size = (320, 56)
    most, step = max(values.values(), default=0), min(16, size[0] / max(1, len(values)))
    inside = []
    for place, (day, value) in enumerate(values.items()):
        tall = max(1, size[1] * value / (most or 1))
        title = f"{day}: {value:,.3g}"
        inside.append(_BAR.format(place * step, size[1] - tall, step * 0.8, tall, title))
    return _svg(size, f"A bar a day, at most {most:,.3g}", inside)


def _svg(size: tuple[int, int], says: str, inside: Iterable[Markup]) -> Markup:
    return _SVG.format(w=size[0], h=size[1], says=says, fill=MUTED, inside=Markup().join(inside))


def write_png(path: Path, panels: Mapping[str, Markup], size: tuple[int, int] = SIZE) -> None:
    """Write a PNG file of charts of one size, at twice that size, up to three in a row."""
    import vl_convert

    columns, (w, h) = min(3, len(panels)), (size[0] + 24, size[1] + 32)
    whole = (w * columns + 24, h * math.ceil(len(panels) / columns) + 24)
    inside = [Markup('<rect width="100%" height="100%" fill="white"/>')]
    for place, (name, svg) in enumerate(panels.items()):
        at = (24 + place % columns * w, 24 + place // columns * h)
        inside.append(_PANEL.format(*at, INK, name, svg))
    write_bytes(path, vl_convert.svg_to_png(_svg(whole, "", inside), scale=2))


def write_policies(path: Path, cells: Sequence[PolicyAccuracy]) -> None:
    """Write a PNG file of the forgetting curve of each policy, means over its seeds."""
    size = (320, 220)
    by = {policy: [cell for cell in cells if cell.policy == policy] for policy, *_ in cells}
    panels = {policy: forgetting_curve(own, low=0, size=size) for policy, own in by.items()}
    write_png(path, panels, size)
