"""Manifests hold what was written, whoever reads them; a changed one is found."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import DAYS, image, simulate, write_day, write_manifest
from dayfold.errors import LedgerError
from dayfold.ledger import corrections, manifest
from dayfold.ledger.manifest import Row
from dayfold.ledger.tables import schema
from dayfold.project.files import parse_csv, sha256, sha256_file
from dayfold.project.layout import ORIGIN

ODD = ['cat "the first"', "a,b", "two\nlines", " spaces ", "Ärztin", "猫", "e\u0301", "#x", "'"]
ODD += ['""', "null", "NaN", "007"]
# A name is anything but NUL and "/", which no file may have in its name, and "\r", which intake
# refuses: Python quotes it in CSV from 3.13 on only.
LETTERS = st.characters(exclude_characters="\0\r/", codec="utf-8")
ANY = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))
TEXT = st.sampled_from(ODD) | ANY


def add(number, label="cat", group="", split="train", path=None):
    return Row("add", image(number), path or f"data/{label}/{number}.png", label, group, split)


def relabel(number, label):
    return Row("relabel", image(number), f"data/cat/{number}.png", label, "", "train")


def withdraw(number):
    return Row("withdraw", image(number), f"data/cat/{number}.png", "", "", "train")


def chain(project, *days):
    histories = []
    for position, rows in enumerate(days):
        parent = DAYS[position - 1] if position else ORIGIN
        histories.append(write_day(project, DAYS[position], parent, rows))
    return histories


def labels(history):
    return dict(history.images.select("image", "label").iter_rows())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_any_names_come_back_as_they_were(project, names):
    rows = [
        Row("add", image(at), path, label, group, "test")
        for at, (path, label, group) in enumerate(names)
    ]
    (history,) = chain(project, rows)
    found = set(history.images.select("image", "path", "label", "group").iter_rows())
    assert found == {(row.image, row.path, row.label, row.group) for row in rows}


def test_a_manifest_is_the_text_that_the_design_says(project):
    chain(project, [add(2), add(1, group="p1", split="test")], [withdraw(1), relabel(2, "a,b")])
    pin = sha256(b"action,image,path,label,group,split\n")
    assert project.manifest(DAYS[0]).read_text() == (
        "action,image,path,label,group,split\n"
        f"parent,{pin},origin,,,\n"
        f"add,{image(1)},data/cat/1.png,cat,p1,test\n"
        f"add,{image(2)},data/cat/2.png,cat,,train\n"
    )
    assert project.manifest(DAYS[1]).read_text() == (
        "action,image,path,label,group,split\n"
        f"parent,{sha256_file(project.manifest(DAYS[0]))},{DAYS[0]},,,\n"
        f'relabel,{image(2)},data/cat/2.png,"a,b",,train\n'
        f"withdraw,{image(1)},data/cat/1.png,,,train\n"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.permutations([*map(add, range(6)), relabel(8, "dog"), withdraw(9)]))
def test_a_manifest_does_not_depend_on_row_order(project, rows):
    chain(project, sorted(rows, reverse=True))
    expected = project.manifest(DAYS[0]).read_bytes()
    chain(project, rows)
    assert project.manifest(DAYS[0]).read_bytes() == expected


def test_a_history_holds_every_image_on_its_day(project):
    nothing = manifest.history(project, ORIGIN)
    assert (nothing.days, nothing.images.height) == ((), 0)
    assert nothing.sha256 == sha256(b"action,image,path,label,group,split\n")
    first, second = chain(project, [add(1), add(2)], [add(3, label="dog", split="test")])
    assert first.days == DAYS[:1]
    assert second.days == DAYS[:2]
    assert second.images.columns == ["image", "path", "label", "group", "split", "day"]
    assert second.images.select("image", "day").rows() == [
        (image(1), DAYS[0]),
        (image(2), DAYS[0]),
        (image(3), DAYS[1]),
    ]
    assert second.split("test")["image"].to_list() == [image(3)]
    assert manifest.added(second, DAYS[0])["image"].to_list() == [image(1), image(2)]
    assert second.sha256 == sha256_file(project.manifest(DAYS[1]))


def test_the_last_label_counts_and_a_withdrawn_image_is_gone_for_ever(project):
    days = [add(1), add(2)], [relabel(1, "dog")], [relabel(1, "eel")], [add(3)]
    histories = chain(project, *days)
    assert [labels(history)[image(1)] for history in histories] == ["cat", "dog", "eel", "eel"]
    assert {labels(history)[image(2)] for history in histories} == {"cat"}
    row = histories[-1].images.filter(image=image(1)).row(0, named=True)
    assert (row["day"], row["split"]) == (DAYS[0], "train")
    days = [add(1, group="p1", split="test"), add(2)], [withdraw(1)], [relabel(1, "dog")]
    before, *after = chain(project, *days)
    assert set(labels(before)) == {image(1), image(2)}
    for history in after:
        assert set(labels(history)) == {image(2)}
        assert history.withdrawn == {image(1)}
        assert history.groups.rows() == [("p1", "test")]  # which is remembered


def test_one_image_on_two_days_does_not_hold_together(project):
    with pytest.raises(LedgerError, match="same image more than once") as caught:
        chain(project, [add(1, path="one.png")], [add(1, path="other.png")])
    assert caught.value.problems == ["one.png", "other.png"]


def test_a_changed_earlier_manifest_is_found_also_beside_a_cached_history(project):
    simulate(project, [[(1, "cat", "")], [(2, "cat", "")], [(3, "cat", "")]])
    manifest.history(project, DAYS[2], cache=True)
    path, name = project.manifest(DAYS[0]), f"data/manifests/{DAYS[0]}.csv"
    path.write_bytes(path.read_bytes().replace(b"cat", b"dog"))
    for kept in (True, False):
        if not kept:
            project.cached_history.unlink()
        with pytest.raises(LedgerError, match="was changed after the next day was made") as caught:
            manifest.history(project, DAYS[2])
        assert caught.value.what.startswith(name)
        assert f"{DAYS[1]} pins" in caught.value.what
        assert caught.value.hint == f"git checkout day/{DAYS[0]} -- {name}"
    assert manifest.history(project, DAYS[0]).days == DAYS[:1]


FEW_DAYS = [(day, kept) for day in (DAYS[0], DAYS[2]) for kept in (True, False)]


@pytest.mark.parametrize(("gone", "kept"), [*FEW_DAYS, (ORIGIN, False)])
def test_a_missing_manifest_is_named_with_the_way_to_have_it_back(project, gone, kept):
    simulate(project, [[(1, "cat", "")], [(2, "cat", "")], [(3, "cat", "")]])
    manifest.history(project, DAYS[2], cache=kept)
    project.manifest(gone).unlink()
    with pytest.raises(LedgerError, match=f"manifest data/manifests/{gone}.csv is missing") as it:
        manifest.history(project, DAYS[2])
    where = "HEAD" if gone == ORIGIN else f"day/{gone}"
    expected = f"git checkout {where} -- data/manifests/{gone}.csv"
    assert it.value.hint == expected + ", or, on the open day, dvc repro" * (gone == DAYS[2])


def test_a_parent_that_is_no_day_or_a_later_one_becomes_no_path(project):
    write_day(project, DAYS[5], ORIGIN, [add(1)])
    with pytest.raises(LedgerError, match=f"names the later day {DAYS[5]} as its parent"):
        write_day(project, DAYS[2], DAYS[5], [add(2)])
    write_day(project, DAYS[0], ORIGIN, [add(1)])
    path = project.manifest(DAYS[0])
    text = path.read_text()
    for parent in ("../../../etc/passwd", "day/foo", "2025-06-31", "", "none"):
        path.write_text(text.replace(f",{ORIGIN},", f",{parent},", 1))
        for read in (
            lambda: manifest.history(project, DAYS[0]),
            lambda: manifest.parent_of(path.read_bytes(), "a manifest"),
        ):
            with pytest.raises(LedgerError, match="as its parent, which is not a day") as caught:
                read()
            assert repr(parent) in str(caught.value)


@pytest.mark.parametrize(
    "expression", ['(?x)\n  p(\\d+)  # the "patient"\n', "a\r\n(b)", "a\r(b)", 'x"(y)']
)
def test_a_data_group_of_several_lines_is_read_back_and_its_parent_too(project, expression):
    history = write_day(project, DAYS[0], ORIGIN, [add(1)], expression)
    assert history.expressions == (expression,)
    data = project.manifest(DAYS[0]).read_bytes()
    assert manifest.parent_of(data, "a manifest") == (ORIGIN, sha256_file(project.manifest(ORIGIN)))
    after = write_day(project, DAYS[1], DAYS[0], [add(2)])
    assert len(after.images) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("parent,", "add,", "does not begin with its parent"),
        (add(1).path, "/etc/passwd", "outside of the project:\n  - /etc/passwd"),
        (add(1).path, "data/images/../../../x", "outside of the project"),
        (add(1).path, "..", "outside of the project"),
        (r"(p\d", "(p[", r"data\.group .* unterminated"),
    ],
)
def test_a_manifest_that_would_do_harm_is_refused(project, old, new, words):
    known = write_day(project, DAYS[0], ORIGIN, [add(1)], r'(p\d+),"_')
    assert known.expressions == (r'(p\d+),"_',)
    path = project.manifest(DAYS[0])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(LedgerError) as caught:
        manifest.history(project, DAYS[0])
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("action,image\n", "has the columns 'action,image', not"),
        ("", "has the columns '', not"),
        ("action,image,label,reason\na,b,c,d,e\n", "cannot be read as CSV"),
        ('action,image,label,reason\na,b,c,"d\n', "cannot be read as CSV"),
    ],
)
def test_a_table_with_other_columns_or_broken_lines_is_refused(text, words):
    with pytest.raises(LedgerError, match=words) as caught:
        parse_csv(text.encode(), schema(corrections.Correction), "some.csv")
    assert caught.value.what.startswith("some.csv")
    assert "git checkout -- some.csv" in caught.value.hint


def test_classes_go_by_the_labels_of_each_day(project):
    # Cats and a dog; then cats are lynxes, the dog a wolf and an eel is new; then dogs again.
    one = [add(1), add(2), add(3, "dog")]
    two = [relabel(1, "lynx"), relabel(2, "lynx"), relabel(3, "wolf"), add(4, "eel"), add(5, "owl")]
    gone = Row("withdraw", image(4), "data/eel/4.png", "", "", "train")
    three = [gone, gone._replace(image=image(3)), relabel(5, "eel"), add(6, "dog")]
    *_, history = chain(project, one, two, three)
    first, second, third = history.classes().values()
    assert (first.new, first.renamed, first.retired) == (("cat", "dog"), {}, frozenset())
    assert second.live == {"lynx", "wolf", "eel", "owl"}
    # A name that takes over another's images whole is no new class.
    assert second.new == ("eel", "owl")
    assert second.renamed == {"cat": "lynx", "dog": "wolf"}
    assert second.retired == {"cat", "dog"}
    assert third.live == {"lynx", "eel", "dog"}
    assert third.new == ()
    assert third.renamed == {"owl": "eel"}
    assert third.retired == {"cat", "wolf", "owl"}
    assert history.corrections.select("on", "image", "before", "label", "day").rows() == [
        (DAYS[1], image(1), "cat", "lynx", DAYS[0]),
        (DAYS[1], image(2), "cat", "lynx", DAYS[0]),
        (DAYS[1], image(3), "dog", "wolf", DAYS[0]),
        (DAYS[2], image(5), "owl", "eel", DAYS[1]),
        (DAYS[2], image(4), "eel", "", DAYS[1]),
        (DAYS[2], image(3), "wolf", "", DAYS[0]),
    ]


def test_a_chain_without_images_is_that_of_a_history_in_which_they_never_came(project):
    arrivals = [[(1, "cat", ""), (2, "cat", "p")], [(3, "dog", "p")], [(4, "dog", "")]]
    *_, before = simulate(project, arrivals)
    write_day(project, DAYS[3], DAYS[2], [relabel(2, "dog"), withdraw(3)])
    days = DAYS[:4]
    chain = [(day, project.manifest(day).read_bytes()) for day in days]
    assert manifest.without(chain, []) == dict(chain)
    made = manifest.without(chain, [image(3)])
    assert made[DAYS[0]] == chain[0][1]  # up to the image nothing changes
    for day, data in made.items():
        project.manifest(day).write_bytes(data)
    after = manifest.history(project, DAYS[3])
    assert (after.days, after.withdrawn) == (days, frozenset())
    kept = {row["image"]: row for row in before.images.iter_rows(named=True)}
    for row in after.images.iter_rows(named=True):
        label = "dog" if row["image"] == image(2) else kept[row["image"]]["label"]
        assert row == {**kept[row["image"]], "label": label}
    assert set(after.images["image"]) == {image(1), image(2), image(4)}


@st.composite
def changing(draw):
    """The rows of four days: images arrive, are relabelled, and leave."""
    days, alive, number = [], set(), 0
    for _ in range(4):
        rows = []
        for at in draw(st.sets(st.sampled_from(sorted(alive)))) if alive else ():
            if draw(st.booleans()):
                rows.append(relabel(at, draw(st.sampled_from(["cat", "dog", "eel"]))))
            else:
                rows.append(withdraw(at))
                alive.discard(at)
        for _ in range(draw(st.integers(0, 3))):
            rows.append(add(number, group=draw(st.sampled_from(["", "p1", "p2"]))))
            alive.add(number)
            number += 1
        days.append(rows)
    return days


def afresh(project, day):
    project.cached_history.unlink(missing_ok=True)
    return manifest.history(project, day)


def same(found, expected):
    assert (found.images.rows(), found.corrections.rows()) == (
        expected.images.rows(),
        expected.corrections.rows(),
    )
    assert found.groups.rows() == expected.groups.rows()
    names = ("withdrawn", "expressions", "days", "sha256")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    assert found.classes() == expected.classes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changing(), st.integers(0, 3))
def test_a_history_is_the_same_from_a_kept_one(project, days, until):
    chain(project, *days)
    expected = [afresh(project, day) for day in DAYS[:4]]
    manifest.history(project, DAYS[until], cache=True)
    for day, history in zip(DAYS, expected, strict=False):
        same(manifest.history(project, day), history)


def test_a_cached_history_is_not_read_again_and_one_of_other_days_is_not_used(project, monkeypatch):
    chain(project, [add(1)], [add(2)], [add(3)])
    manifest.history(project, DAYS[1], cache=True)
    read = []
    real = manifest._read
    monkeypatch.setattr(
        manifest, "_read", lambda project, day, *pin: read.append(day) or real(project, day, *pin)
    )
    manifest.history(project, DAYS[2])
    assert read == [DAYS[2], DAYS[1]]
    write_day(project, DAYS[1], DAYS[0], [add(4)])  # such as another branch has
    assert labels(manifest.history(project, DAYS[1])).keys() == {image(1), image(4)}


def test_an_image_that_the_cached_history_has_or_had_cannot_arrive_again(project):
    chain(project, [add(1), add(2)], [withdraw(2)], [add(3)])
    manifest.history(project, DAYS[1], cache=True)
    for number in (1, 2, 3):
        rows = [add(3), add(number, path="data/again.png")]
        write_manifest(project, DAYS[2], DAYS[1], rows)
        with pytest.raises(LedgerError, match="more than once"):
            manifest.history(project, DAYS[2])


def test_a_damaged_cached_history_is_not_used(project):
    chain(project, [add(1)], [add(2)])
    expected = manifest.history(project, DAYS[1], cache=True)
    whole = project.cached_history.read_bytes()
    half = len(whole) // 2
    for damaged in (b"", whole[:half], b"no table", bytes(half)):
        project.cached_history.write_bytes(damaged)
        same(manifest.history(project, DAYS[1], cache=True), expected)
        assert project.cached_history.read_bytes() == whole
