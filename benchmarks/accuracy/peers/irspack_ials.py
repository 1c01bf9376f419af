"""Lists of irspack's iALS, one for each of several settings. Runs in an environment with irspack, not with recvae.

python irspack_ials.py JOB, a JSON of {"rows": MATRIX.npz, "fold_in": MATRIX.npz, "N": 100, "settings": [{...}, ...],
"out": LISTS.npz}

Each setting is fitted on `rows`; then the N best items that are not in it are listed for each row of `fold_in`, padded
with -1. Only these lists are returned, no factors: LISTS.npz has them as "0", "1", ... in the order of the settings,
and the seconds of each as "fit_seconds" and "list_seconds".
"""

import json
import sys
import time
from typing import Any

import numpy as np
from irspack import IALSRecommender
from numpy.typing import NDArray
from scipy import sparse

BLOCK = 4000  # users whose scores are in memory at once


def main() -> None:
    """Fit and list by each of the settings."""
    job = json.loads(sys.argv[1])
    rows, fold_in = (sparse.load_npz(job[name]).tocsr().astype(np.float32) for name in ("rows", "fold_in"))
    found: dict[str, Any] = {"fit_seconds": [], "list_seconds": []}
    for number, settings in enumerate(job["settings"]):
        started = time.perf_counter()
        model = IALSRecommender(rows, **settings).learn()
        fitted = time.perf_counter()
        found[str(number)] = np.concatenate(
            [_best(model, fold_in[start : start + BLOCK], job["N"]) for start in range(0, fold_in.shape[0], BLOCK)]
        )
        found["fit_seconds"].append(fitted - started)
        found["list_seconds"].append(time.perf_counter() - fitted)
    np.savez(job["out"], **found)


def _best(model: IALSRecommender, rows: sparse.csr_matrix, N: int) -> NDArray[np.int32]:
    scores = model.get_score_cold_user(rows)  # (B, I)
    scores[rows.nonzero()] = -np.inf
    N = min(N, scores.shape[1])
    found = np.argpartition(-scores, N - 1, axis=1)[:, :N]
    values = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    ids = np.take_along_axis(found, order, axis=1)
    return np.where(np.isfinite(np.take_along_axis(values, order, axis=1)), ids, -1).astype(np.int32)


main()
