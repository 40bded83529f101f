"""The chain of days, and every byte that is kept: what is damaged is found, named and fixed."""

import numpy as np
import pytest

from builders import benchmark
from dayfold.demo import DAYS
from dayfold.project import vcs
from dayfold.proof.chain import Finding
from dayfold.proof.verify import shortened, verify

pytestmark = pytest.mark.slow
ONE, TWO, THREE = DAYS[:3]

flips = benchmark("flips")


def test_every_flipped_bit_is_found_and_its_file_named(copy):
    assert f"3 days from {ONE} to {THREE}: nothing damaged; " in copy.dayfold(
        "check", "--read-data"
    )
    chance = np.random.default_rng(1)
    files = flips.stored(copy.root)
    assert set(files) == set(flips.KINDS)
    together = [kind for kind in files if not kind.startswith("git")]
    for _ in range(2):
        paths = [files[kind][chance.integers(len(files[kind]))] for kind in together]
        found, named = flips.trial(copy, paths, chance)
        assert found
        assert [path for path, one in zip(paths, named, strict=True) if not one] == []
    # Alone: without an object of git's, the rest can hardly be read.
    for kind in ("git objects", "git tags"):
        for _ in range(2):
            path = files[kind][chance.integers(len(files[kind]))]
            found, _ = flips.trial(copy, [path], chance)
            assert found, path
    assert verify(copy, read_data=True).damage == []


def test_a_long_list_of_damage_is_folded_day_by_day():
    damage = [Finding(day, f"{number} is damaged", "") for day in (ONE, TWO) for number in range(7)]
    said = list(shortened(damage))
    more = [f"{one.day}  {one.what}" for one in said if "more" in one.what]
    assert more == [f"{ONE}  and 2 more", f"{TWO}  and 2 more"]
    assert len(said) == 2 * 6


def test_the_origin_s_model_is_read_while_one_day_is_sealed(copy):
    copy.git("checkout", "--quiet", f"day/{ONE}")
    copy.dvc("checkout", "--force")
    assert verify(copy, read_data=True).damage == []
    data = copy.parent_model.read_bytes()
    copy.parent_model.unlink()
    copy.parent_model.write_bytes(flips.flipped(data, np.random.default_rng(3)))
    [(_, what, fix)] = verify(copy, read_data=True).damage
    assert "data/parent/model.safetensors is damaged" in what
    copy.sh("-c", fix)
    assert copy.parent_model.read_bytes() == data


def test_each_fix_brings_the_thing_back_and_what_a_gc_deleted_is_told(copy):
    chance = np.random.default_rng(2)
    image = sorted(copy.images(TWO).rglob("*.png"))[0]
    for path in (image, copy.manifest(ONE), copy.groups(ONE), copy.predictions):
        data = path.read_bytes()
        path.unlink()  # a link of DVC's: else the flip is in the cache as well
        path.write_bytes(flips.flipped(data, chance))
        [(_, what, fix)] = verify(copy, read_data=True).damage
        assert copy.name(path) in what
        copy.sh("-c", fix)
    for path in (copy.groups(ONE), copy.corrections(TWO), copy.looks(THREE)):
        path.unlink()
        [(_, what, fix)] = verify(copy, read_data=False).damage
        assert what == f"{copy.name(path)} is missing"
        copy.sh("-c", fix)
    assert verify(copy, read_data=True).damage == []
    vcs.git(copy.root, "tag", "--delete", f"day/{THREE}")
    copy.dvc("gc", "--workspace", "--force")
    copy.dayfold("seal")
    [(days, what, fix), *_] = verify(copy, read_data=False).damage
    assert (days, "no remote is set up to ask" in what) == (f"{ONE} to {TWO}", True)
    # That this brings them back is tested in test_reproduce.py.
    assert fix.endswith(f"here: dayfold reproduce --from-scratch --restore {TWO}")


def test_a_parent_that_is_not_yesterdays_model_is_found_and_a_broken_git_told(copy):
    # As if someone had sealed the second day once more, from other weights.
    vcs.git(copy.root, "checkout", "--quiet", f"day/{TWO}")
    text = copy.provenance.read_text()
    model = text.split('"model": "')[1][:64]
    copy.provenance.write_text(text.replace(model, model[::-1]))
    vcs.git(copy.root, "commit", "--quiet", "--all", "--message", "forged")
    vcs.git(copy.root, "tag", "--force", "--annotate", "--message", "forged", f"day/{TWO}")
    # And the third day put on top of it.
    vcs.git(copy.root, "cherry-pick", "--strategy-option=theirs", f"day/{THREE}^{{commit}}")
    vcs.git(copy.root, "tag", "--force", "--annotate", "--message", "forged", f"day/{THREE}")
    said = {(day, what) for day, what, _ in verify(copy, read_data=False).damage}
    assert (THREE, f"its parent is not the model that {TWO} sealed") in said
    for path in (copy.root / ".git" / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size > 300:
            path.chmod(0o644)
            path.write_bytes(b"")
    copy.dayfold("check", "--read-data", code=1)
