"""Kill -9 at random instants costs no image, no day and no commit, and needs nothing by hand."""

import pytest

import warm
from builders import benchmark


# A sample, of one trial; hundreds of kills are in benchmarks/kill.py.
@pytest.mark.slow
def test_commands_that_are_killed_and_given_again_come_to_the_same_day(tmp_path, monkeypatch):
    kill = benchmark("kill")
    base = kill.begin(tmp_path / "base")
    monkeypatch.setenv(warm.COLD, "1")
    again = kill.again

    def again_warm(*words):
        with monkeypatch.context() as patched:
            patched.delenv(warm.COLD)
            again(*words)

    # What is killed are processes as a user's are; for time, what is given again starts warm.
    monkeypatch.setattr(kill, "again", again_warm)
    lost = kill.run(base, kills=3, seed=1, commands=2)
    assert sum(lost.kills.values()) == 3
    assert (lost.images, lost.days, lost.commits) == (0, 0, 0)
    assert lost.steps == []
    assert lost.hashes == []
