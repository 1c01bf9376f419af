"""The kinds by name, and how many mutants of each a long run has."""

from __future__ import annotations

from tests.fuzz.judging import Kind
from tests.fuzz.matrices import Matrices
from tests.fuzz.models import Models

KINDS: dict[str, type[Kind]] = {"models": Models, "matrices": Matrices}
COUNTS = {"models": 20_000, "matrices": 10_000}
