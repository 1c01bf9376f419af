"""A short run of the fuzzer in tests/fuzz, and that it finds faults which are planted.

The fuzzer forks, so that it has a process of its own: this one may have threads.
"""

import json

import pytest

from tests.fuzz.judging import PACKAGE
from tests.fuzz.refusals import LOADERS, refusals
from tests.processes import start_process

# mutants, those that are written by hand first; a long run has thousands: see docs/security.md
SHORT = {"models": 220, "matrices": 60, "shards": 60, "checkpoints": 10, "numpy": 50, "cards": 24}
PARTS = [("models",), ("matrices", "shards", "checkpoints", "numpy", "cards")]  # for two workers
RUN = """
import contextlib, sys
from tests.fuzz.__main__ import main
with open(sys.argv.pop(1), "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
    sys.exit(main())
"""


@pytest.fixture
def fuzz(tmp_path):
    """-> a function that runs the fuzzer, which is to find no failure; -> what it prints"""

    def run(*arguments):
        process = start_process(RUN, tmp_path / "printed", "--seed", 19, "--workers", 1, *arguments)
        process.join(300)
        printed = (tmp_path / "printed").read_text()
        assert process.exitcode == 0, printed
        return printed

    return run


def test_all_kinds_are_in_a_part():
    assert sorted(name for part in PARTS for name in part) == sorted(SHORT)


@pytest.mark.parametrize("part", PARTS, ids="-".join)
def test_strangers_files_and_matrices_end_in_a_sentence_or_load_right(part, tmp_path, fuzz):
    counts = {name: SHORT[name] for name in part}
    kinds = ",".join(f"{name}={count}" for name, count in counts.items())
    fuzz("--kinds", kinds, "--out", tmp_path / "fuzz.json")
    found = json.loads((tmp_path / "fuzz.json").read_text())["kinds"]
    assert {name: kind["mutants"] for name, kind in found.items()} == counts
    assert all(kind["outcomes"].get("refused", 0) for kind in found.values())


def test_planted_faults_are_found(fuzz):
    assert len(json.loads(fuzz("--planted"))) == 3


def test_refusals_are_found_in_the_source():
    known = {each.file for each in refusals()}
    assert {
        "models/base/model_file.py",
        "data/rows.py",
        "utils/folder.py",
        "training/checkpoint_state.py",
        "benchmark/results.py",
        "datasets/card.py",
        "datasets/parsers.py",
        "tuning/study.py",
    } <= known
    assert len(refusals()) > 50
    assert [pattern for pattern in LOADERS if not list(PACKAGE.glob(pattern))] == []
