"""The kinds by name, and how many mutants of each a long run has."""

from __future__ import annotations

from tests.fuzz.cards import Cards
from tests.fuzz.checkpoints import Checkpoints
from tests.fuzz.configurations import Configurations
from tests.fuzz.judging import Kind
from tests.fuzz.manifests import BulkManifests, CellManifests
from tests.fuzz.matrices import Matrices
from tests.fuzz.models import Models
from tests.fuzz.numpy_files import NumpyFiles
from tests.fuzz.results import Results
from tests.fuzz.shards import ShardFolders
from tests.fuzz.studies import Studies

ALL = (Models, Matrices, ShardFolders, Checkpoints, BulkManifests, CellManifests, Results, Cards)
KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (*ALL, Configurations, Studies, NumpyFiles)}
COUNTS = dict.fromkeys(KINDS, 2_000) | {"models": 20_000, "matrices": 10_000, "shards": 5_000}
