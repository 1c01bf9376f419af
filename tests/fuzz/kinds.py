"""The kinds by name, and how many mutants of each a long run has."""

from __future__ import annotations

from tests.fuzz.checkpoints import Checkpoints
from tests.fuzz.judging import Kind
from tests.fuzz.manifests import BulkManifests, CellManifests
from tests.fuzz.matrices import Matrices
from tests.fuzz.models import Models
from tests.fuzz.shards import ShardFolders

KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Models, Matrices, ShardFolders, Checkpoints, BulkManifests, CellManifests)
}
COUNTS = dict.fromkeys(KINDS, 2_000) | {"models": 20_000, "matrices": 10_000, "shards": 5_000}
