"""A short run of benchmarks/fuzz.py: mutated files do no harm."""

from runpy import run_path

from builders import ROOT

FUZZ = run_path(str(ROOT / "benchmarks" / "fuzz.py"))


def test_every_file_that_is_mutated_was_good(tmp_path):
    from dayfold.ledger.decode import examine

    forms = {examine(data).form for data in FUZZ["pictures"]().values()}
    assert forms == {"PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "DICOM"}


def test_mutated_images_are_added_or_refused_and_none_is_lost(tmp_path):
    outcomes = FUZZ["fuzz_images"](tmp_path, 500, 1)
    assert sum(outcomes.values()) == 500


def test_mutated_params_and_corrections_are_taken_or_refused(tmp_path):
    outcomes = FUZZ["fuzz_texts"](tmp_path, 100, 1)
    assert sum(outcomes.values()) == 100
    assert len(outcomes) == 4


def test_mutated_archives_are_unpacked_or_refused(tmp_path):
    assert sum(FUZZ["fuzz_archives"](tmp_path, 200, 1).values()) == 200
