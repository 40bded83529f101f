"""A day is a date as YYYY-MM-DD, and nothing else."""

from datetime import datetime, timedelta

import pytest

from dayfold.cli.top import day_of
from dayfold.errors import CycleError
from dayfold.project import params, vcs
from dayfold.project.layout import check_day


def test_a_date_is_a_day_and_nothing_else():
    for day in ("2025-06-04", "2024-02-29", "0001-01-01"):
        assert check_day(day) == day
    others = ("2025-6-4", "20250604", "2025-02-30", "../../etc", "2025-06-04\n", "\uff12025-06-04")
    for typed in (*others, ""):
        with pytest.raises(CycleError, match="is not a day"):
            check_day(typed)


def test_a_day_that_has_not_come_is_refused():
    now = datetime.now().astimezone().date()
    given = (now + timedelta(days=1)).isoformat()
    with pytest.raises(CycleError, match=f"{given} is in the future") as caught:
        day_of(given)
    assert caught.value.hint == f"give a day up to {now.isoformat()}"
    assert day_of(None) == day_of(now.isoformat()) == now.isoformat()


def test_a_day_that_was_opened_in_a_time_zone_ahead_is_open(project, monkeypatch):
    given = (datetime.now().astimezone().date() + timedelta(days=1)).isoformat()
    params.edit(project.params, {"day": given})
    project.dvc_yaml.touch()
    monkeypatch.chdir(project.root)
    assert day_of(given) == given


def test_a_stranger_s_tag_is_no_day(tmp_path, shell):
    shell(tmp_path, "git", "init", "--quiet")
    shell(tmp_path, "git", "commit", "--quiet", "--allow-empty", "--message", "one")
    for tag in ("day/2025-06-03", "day/2025-06-02", "day/foo", "day/2025-02-30", "day/a/b"):
        shell(tmp_path, "git", "tag", "--annotate", "--message", tag, tag)
    assert vcs.sealed_days(tmp_path) == ["2025-06-02", "2025-06-03"]
    assert list(vcs.seals(tmp_path)) == ["2025-06-02", "2025-06-03"]
