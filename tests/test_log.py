"""The table of days: what its marks and its last column say."""

import io
import re

import polars as pl
from rich.console import Console

from builders import DAYS, IDENTITY, day_metrics, make_project
from dayfold.figures import evidence, gate, log
from dayfold.figures.evidence import Evidence
from dayfold.figures.log import DayLine
from dayfold.ledger import tables
from dayfold.ledger.tables import Check, Evaluation, schema
from dayfold.project import console, vcs

ONE, TWO, THREE, FOUR = DAYS[:4]


KNOWN = Evidence("image", {ONE: 40}, {"cat": 40, "[dog]": 40}, all=40, earlier=40)


def printed(table):
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return text.getvalue().splitlines()


def test_a_narrow_terminal_cuts_no_figure_and_no_name(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.show(log.more(history(worse=5)))
    shown = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert shown[0].split()[0] == "day"
    assert [line.split()[0] for line in shown[1:]] == [ONE, TWO, THREE]
    assert all(name in shown[0] for name in log.MORE_COLUMNS)
    assert "…" not in "".join(shown)


def history(worse, known=KNOWN):
    """Two days of 40 cats: all right on the first, `worse` fewer on the second; as lines."""
    rows = [(ONE, ONE, "cat", "cat", 9, 40, 0.9, None)]
    rows += [(TWO, ONE, "cat", "cat", 9, 40 - worse, 0.9, 40 - worse)]
    rows += [(TWO, ONE, "cat", "[dog]", 9, worse, 0.9, worse)] * bool(worse)
    evaluations = pl.DataFrame(rows, schema=schema(Evaluation), orient="row")
    figures = day_metrics(evaluations, [ONE, TWO], {ONE: ["cat"], TWO: ["[dog]"]})
    evidence.judge(figures[ONE], known, ["cat"])
    evidence.judge(figures[TWO], known, ["[dog]"])
    return [
        DayLine(ONE, 40, 1, ("cat",), figures[ONE]),
        DayLine(TWO, 3, 2, ("[dog]",), figures[TWO]),
        DayLine(THREE, 3, 2, (), None),
    ]


VERDICTS = dict.fromkeys(DAYS[:3], "ok")


def test_a_star_marks_a_day_that_is_worse_than_chance_allows():
    lines = history(worse=5)
    first, second = printed(log.more(lines))[1:3]
    assert "*" not in first
    assert "0.125*" in second
    (note,) = log.notes(lines, VERDICTS, {}, KNOWN, with_more=True)
    assert note.startswith("* worse than the day before")
    # Five figures are shown by default, and no star without its column.
    assert not any("*" in line for line in printed(log.table(lines, VERDICTS)))
    assert log.notes(lines, VERDICTS, {}, KNOWN) == []
    lines = history(worse=4)
    assert not any("*" in line for line in printed(log.more(lines)))
    forced = {TWO: "so be it"}
    assert log.notes(lines, VERDICTS, forced, KNOWN) == [f"{TWO} was sealed by force: so be it"]


def test_what_rests_on_too_few_is_no_figure_and_has_no_star():
    known = Evidence("patient", {ONE: 3}, {"cat": 3, "[dog]": 0}, all=3, earlier=3)
    lines = history(worse=5, known=known)
    # Of 40 images of 3 patients; what is undefined has its dash.
    first, second = printed(log.table(lines, VERDICTS))[1:3]
    assert first.split()[4:] == ["few", "-", "few", "ok"]
    assert second.split()[4:] == ["3", "few", "few", "-", "ok"]
    first, second = printed(log.more(lines))[1:3]
    assert first.split()[1:] == ["few", "few", "-", "few", "-", "-"]
    assert second.split()[1:] == ["few", "few", "few", "-", "-", "-"]
    assert log.notes(lines, VERDICTS, {}, known) == [
        "few: too few to judge; dayfold report --day DAY shows the figure and its interval",
        "Too few test patients to judge any figure: 3 in all.",
    ]


def test_a_day_without_figures_has_its_line_and_names_are_no_markup():
    assert " patients tested " in printed(log.table(history(worse=0), VERDICTS, unit="patient"))[0]
    lines = printed(log.table(history(worse=0), VERDICTS))
    assert lines[2].split()[:4] == [TWO, "3", "2", "+[dog]"]
    assert lines[3].split() == [THREE, "3", "2", *["-"] * 4, "ok"]
    assert lines[1].split()[3] == "40"


def test_the_gate_column_says_what_became_of_a_day(tmp_path):
    project = make_project(tmp_path)
    bad = Check("min_class_f1", "cat", 0.5, 0.1, 0.0, 0.2, 0)
    for day, check in zip(DAYS[:4], (bad._replace(passed=1), bad, bad, bad), strict=True):
        tables.write(project.gate(day), Check, [check])
    tables.write(project.gate(DAYS[4]), Check, [])
    few = bad._replace(passed=None)
    tables.write(project.gate(DAYS[6]), Check, [few, few, bad._replace(passed=1)])
    lines = [DayLine(day, 1, 1, (), None) for day in DAYS[:7]]
    vcs.git(project.root, "init", "--quiet")
    project.manifest(DAYS[5]).touch()
    vcs.git(project.root, "add", project.name(project.manifest(DAYS[5])))
    vcs.git(project.root, "commit", "--quiet", "--message", "by hand", more=IDENTITY)
    for day in (*DAYS[:3], DAYS[6]):
        message = f"so be it\n\n{gate.FORCED}" if day == TWO else "as usual"
        vcs.git(project.root, "tag", f"{vcs.TAG}{day}", "--message", message, more=IDENTITY)
    assert log.verdicts(project, lines, gate.forced(project)) == {
        ONE: "ok",
        TWO: "forced",
        THREE: "failed",
        FOUR: "failed",
        DAYS[4]: "open",
        DAYS[5]: "committed",
        DAYS[6]: "1/3",
    }
    (note,) = log.notes([], {ONE: "ok", TWO: "1/3"}, {}, KNOWN)
    assert note == "1/3: 1 of 3 checks of the gate passed, the others are not judged"
