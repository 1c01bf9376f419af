"""Faults that are planted in the package, in the children alone: the fuzzer has to find them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from recvae.data import rows, validation
from recvae.data.shards import files as shard_files
from tests.fuzz.judging import Verdict
from tests.fuzz.kinds import KINDS
from tests.fuzz.running import run_kind

ENOUGH = 600  # mutants among which each is found


class Plant(NamedTuple):
    """A fault, and the kind of mutants that is to find it, by failures that begin with one of these words."""

    kind: str
    plant: Callable[[], object]
    words: tuple[str, ...]


def everywhere(original: Any, replacement: Any) -> None:
    """Put another function into all modules of the package that have this one."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "recvae":
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, replacement)


def _structure() -> None:
    """The check of a matrix's index arrays is off."""
    everywhere(validation.check_arrays, lambda *given: None)


def _bound() -> None:
    """Items of a shard may be as many as there are, which is one too many."""
    sound = shard_files.is_sound
    everywhere(sound, lambda read, rows, events, n_items: sound(read, rows, events, n_items + 1))


def _not_numbers() -> None:
    """Values of a matrix may be anything."""
    everywhere(rows.check_content, lambda data: None)


PLANTS = {
    "a check is off": Plant("matrices", _structure, ("crash", "wrong: a damaged matrix")),
    "a bound is off by one": Plant("shards", _bound, ("wrong: items outside",)),
    "NaN is let in": Plant("matrices", _not_numbers, ("wrong: values that are none",)),
}


def find(plant: Plant, seed: int) -> int | None:
    """The number of mutants that were judged until the fault was found; None where it was not."""

    def found(verdict: Verdict) -> bool:
        return verdict.failure.startswith(plant.words)

    verdicts = run_kind(KINDS[plant.kind](), seed, ENOUGH, plant=plant.plant, enough=found)
    return next((judged for judged, verdict in enumerate(verdicts, 1) if found(verdict)), None)
