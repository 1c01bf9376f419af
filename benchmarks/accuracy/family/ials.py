"""irspack's iALS as a baseline: it fits and ranks in its own environment, our evaluator chooses and measures.

implicit's ALS is no substitute: it has one penalty for all factors, here the penalty grows with the number of events
of a user or item (Rendle et al. 2021, "Revisiting the Performance of iALS on Item Recommendation Benchmarks").
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.accuracy.peers import SCRIPTS
from recvae.data.interactions import Interactions
from recvae.data.rows import transform_values
from recvae.data.splits import Holdout, Split
from recvae.errors import TrainingError
from recvae.evaluation.evaluate import Evaluation, evaluate_ranker
from recvae.evaluation.names import parse_metric

SECONDS = ("fit_seconds", "list_seconds")
# alpha0: weight of all cells, beside 1 (or the value) of those with an event; reg: penalty, scaled by frequency
GRID: list[dict[str, Any]] = [
    {"n_components": n_components, "alpha0": alpha0, "reg": reg}
    for n_components in (64, 128, 256)
    for alpha0, reg in ((0.1, 0.003), (0.1, 0.01), (0.2, 0.006), (0.4, 0.01))
]


def run_ials(
    python: Path, split: Split, metrics: Sequence[str], main_metric: str, grid: Sequence[dict[str, Any]] = GRID
) -> tuple[Evaluation, dict[str, Any]]:
    """Choose on validation users, fit again, evaluate on test users. -> evaluation, and settings and seconds

    python : an interpreter with irspack
    """
    started = time.perf_counter()
    lists, _ = _lists(python, split.train, split.valid, [main_metric], grid)
    scores = [_evaluate(ids, split.valid, [main_metric])[main_metric].mean for ids in lists]
    best, choice_seconds = grid[int(np.argmax(scores))], time.perf_counter() - started
    (ids,), seconds = _lists(python, split.refit or split.train, split.test, metrics, [best])
    about = {
        "parameters": best,
        "settings_tried": len(grid),
        "choice_seconds": choice_seconds,
        "fit_seconds": float(seconds["fit_seconds"][0]),
        "users_ranked_per_second": len(ids) / float(seconds["list_seconds"][0]),
    }
    return _evaluate(ids, split.test, metrics), about


def _lists(
    python: Path, train: Interactions, holdout: Holdout, metrics: Sequence[str], grid: Sequence[dict[str, Any]]
) -> tuple[list[NDArray[np.int32]], dict[str, NDArray[np.float64]]]:
    """Run the script. -> the best items for each user of the holdout by each setting, and the seconds it reports"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {part: str(folder / f"{part}.npz") for part in ("rows", "fold_in", "out")}
        for part, matrix in (("rows", train.matrix), ("fold_in", holdout.fold_in)):
            read = transform_values(matrix, train.values)  # as all models read them
            sparse.save_npz(paths[part], sparse.csr_matrix(read), compressed=False)
        job = paths | {"N": max(parse_metric(metric)[1] for metric in metrics), "settings": list(grid)}
        command = [str(python), str(SCRIPTS / "irspack_ials.py"), json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise TrainingError(f"Expected lists of irspack's iALS, got: {done.stderr.strip()[-500:]}")
        with np.load(paths["out"]) as found:
            return [found[str(number)] for number in range(len(grid))], {name: found[name] for name in SECONDS}


def _evaluate(ids: NDArray[np.int32], holdout: Holdout, metrics: Sequence[str]) -> Evaluation:
    return evaluate_ranker(lambda places, _, N: ids[places, :N], holdout, metrics)
