"""Which refusals the loaders have: read from their source, so that none is forgotten."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tests.fuzz.judging import PACKAGE

LOADERS = [
    *(
        "models/base/model_file.py",
        "models/base/file_tensors.py",
        "data/rows.py",
        "data/validation.py",
        "utils/folder.py",
        "training/checkpoint*.py",
        "benchmark/results.py",
        "datasets/card.py",
        "datasets/parsers.py",
    ),
    *("serving/export/numpy_scorer.py", "tuning/study.py", "data/shards/*.py"),
]
# what no file can bring about
NOT_BY_FILES = {
    "MissingDependencyError": "a library that is not installed",
    "OutputError": "a place that cannot be written to",
    "OutOfRangeError": "an argument of the caller's",
    "InvalidTypeError": "an argument of the caller's",
}


# refusals in the same files that no content of a file reaches, by file and function, or by the key of one refusal
EXCEPTED = {
    "datasets/card.py load_card": "the name of a data set",
    "datasets/card.py known_cards": "a checkout without symbolic links",
    "utils/folder.py load_manifest ValueError 3": "a manifest of more than a GiB, which a mutant has no room for",
    "data/rows.py transform_values": "the name of a transform of values",
    "models/base/model_file.py write_bytes OSError 1": "a disk or stream that takes less than it is given",
    "models/base/model_file.py read_model DataNotFoundError 2": "a file that is not there or cannot be opened",
    "models/base/model_file.py check_numbers InvalidDataError 0": "a tensor of a type that is about to be written",
    "data/shards/cells.py _read": "a file that becomes shorter while it is read",
    "data/shards/read.py _holdout": "users who were not kept out when the shards were written",
    "training/checkpoint.py check": "the intervals of a Checkpoint",
    "models/base/model_file.py write_model": "ids and titles that are too long to be written",
    "data/shards/assignment.py assign": "filters that leave nothing",
    "data/shards/write.py _settings": "the name of a transform of values",
    **dict.fromkeys(
        [
            f"serving/export/numpy_scorer.py {name}"
            for name in ("recommend", "_read", "_ragged", "_check_rows", "_checked_values")
        ],
        "what a scorer is asked",
    ),
}


@dataclass(frozen=True)
class Refusal:
    """A `raise` statement of a loader."""

    file: str
    function: str
    error: str
    number: int  # of those of its function
    first: int  # line
    last: int

    @property
    def key(self) -> str:
        """A name that stays where lines move."""
        return f"{self.file} {self.function} {self.error} {self.number}"

    def covers(self, places: set[tuple[str, int]]) -> bool:
        """Whether an error came from it."""
        return any(file == self.file and self.first <= line <= self.last for file, line in places)


def refusals() -> list[Refusal]:
    """All of the loaders, but for those that no file can bring about."""
    paths = sorted({path for pattern in LOADERS for path in PACKAGE.glob(pattern)})
    found = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                raised = [each for each in ast.walk(function) if isinstance(each, ast.Raise) and each.exc is not None]
                for number, each in enumerate(raised):
                    file = str(path.relative_to(PACKAGE))
                    found.append(
                        Refusal(file, function.name, _error(each), number, each.lineno, each.end_lineno or each.lineno)
                    )
    return [
        each
        for each in found
        if each.error not in NOT_BY_FILES
        and f"{each.file} {each.function}" not in EXCEPTED
        and each.key not in EXCEPTED
    ]


def _error(statement: ast.Raise) -> str:
    called = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
    return ast.unparse(called).partition(".")[0] if called is not None else ""


def unreached(reached: set[str]) -> list[str]:
    """Those that were not reached."""
    return [each.key for each in refusals() if each.key not in reached]
