"""Ways to combine a VAE and a linear path, compared on validation users: the results in `docs/hybrid.md`.

A weight that a combination needs is the best of a few on the same users, for all ways alike; test users are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from recvae import EDLAE, Holdout, MultDAE, RecVAE, TrainingOptions, evaluate, load_split
from recvae.data.batches import Batch
from recvae.data.rows import transform_values
from recvae.evaluation.evaluate import evaluate_ranker
from recvae.models.baselines import ALS
from recvae.nn import VAE
from recvae.utils.topk import rank

METRIC = "ndcg@100"
WEIGHTS = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)  # of the second model, in units of the ratio of standard deviations
FOLDS = 5


def run_joins(dataset: str, home: Path | None, split_seeds: list[int], save: Callable[[dict[str, Any]], None]) -> None:
    """Measure NDCG@100 of each combination on the validation users of each split."""
    results: dict[str, list[float]] = {}
    for seed in split_seeds:
        split = load_split(dataset, home, seed=seed)
        rows = transform_values(split.train.matrix, split.train.values)
        valid = replace(split.valid, fold_in=transform_values(split.valid.fold_in, split.train.values))
        for way, value in _ways(rows, valid):
            results.setdefault(way, []).append(value)
            print(f"split seed {seed}: {value:.4f} {way}", flush=True)
            save({"dataset": dataset, "split_seeds": split_seeds, METRIC: results})


def _ways(rows: sparse.csr_matrix, valid: Holdout) -> Iterator[tuple[str, float]]:
    start = TrainingOptions(initial_weights="random")  # as when the table was recorded
    models = {
        "RecVAE": RecVAE(epochs=25, learning_rate=1e-3, random_state=0, training=start),
        "MultDAE": MultDAE(random_state=0, training=start),
        "EDLAE": EDLAE(l2=300.0),
        "EDLAE, users weighed": EDLAE(l2=300.0, user_power=0.5),
        "ALS": ALS(factors=256, regularization=60.0, alpha=8.0, random_state=0),
    }
    for model in models.values():
        model.values = "raw"  # `transform_values` has been applied already
    s: dict[str, Tensor] = {}  # (U, I)
    for name, model in models.items():
        s[name] = model.fit(rows, show_progress=False, valid=valid)._score(valid.fold_in)
        yield f"{name} alone", _value(s[name], valid)
    vae, path = s["RecVAE"], s["EDLAE, users weighed"]
    n = torch.from_numpy(np.diff(valid.fold_in.indptr)).float()[:, None]
    yield "MultDAE + a EDLAE, users weighed", _best(s["MultDAE"], path, valid)[0]
    yield "RecVAE + a EDLAE", _best(vae, s["EDLAE"], valid)[0]
    joined, a = _best(vae, path, valid)
    yield "RecVAE + a EDLAE, users weighed", joined
    for power in (-0.25, 0.25):
        yield f"RecVAE + a n_u^{power} EDLAE, users weighed", _best(vae, path * n**power, valid)[0]
    yield "RecVAE + a log EDLAE, users weighed", _best(vae, path.clamp(min=1e-3).log(), valid)[0]
    yield "RecVAE + a EDLAE, users weighed, + c ALS", _best(vae + a * path, s["ALS"], valid)[0]
    for way, folds in (("on themselves", 1), (f"in {FOLDS} folds, on the others", FOLDS)):
        joined_model = JoinedInTraining(folds=folds).fit_on(rows)
        yield (
            f"MultDAE trained on top of EDLAE's scores, solved {way}",
            evaluate(joined_model, valid, [METRIC])[METRIC].mean,
        )


def _value(scores: Tensor, valid: Holdout) -> float:
    def ranker(users: Any, rows: sparse.csr_matrix, N: int) -> Any:
        chosen = scores[torch.from_numpy(users)]
        return rank(lambda _, block: chosen[block], rows, N)[0]

    return evaluate_ranker(ranker, valid, [METRIC])[METRIC].mean


def _best(first: Tensor, second: Tensor, valid: Holdout) -> tuple[float, float]:
    """The best metric of first + a * second over WEIGHTS, and its a."""
    unit = float(first.std() / second.std())
    return max((_value(first + weight * unit * second, valid), weight * unit) for weight in WEIGHTS)


class JoinedInTraining:
    """A MultDAE trained with a * x B added to its logits; a is learned with the network.

    With one fold, B is solved on the users that the network is trained on; otherwise on those of the other folds.
    """

    def __init__(self, folds: int):
        self.folds = folds

    def fit_on(self, rows: sparse.csr_matrix) -> JoinedInTraining:
        self.path = self._solved(rows)
        fold = np.random.default_rng(0).integers(self.folds, size=rows.shape[0])
        scores = torch.empty(rows.shape)
        for k in range(self.folds):
            path = self.path if self.folds == 1 else self._solved(rows[fold != k])
            scores[torch.from_numpy(fold == k)] = path._score(rows[fold == k])
        self.log_a = nn.Parameter(torch.tensor([[1.5]]))
        self.network = _Joined(scores, self.log_a).fit(rows, show_progress=False, valid=None)
        return self

    def _solved(self, rows: sparse.csr_matrix) -> EDLAE:
        return EDLAE(l2=300.0, user_power=0.5, values="raw").fit(rows, show_progress=False)

    def recommend(self, users: Any, rows: sparse.csr_matrix, N: int, **_: Any) -> Any:
        scores = self.network._score(rows) + self.log_a.detach().exp() * self.path._score(rows)
        return rank(lambda _, block: scores[block], rows, N)


class _Joined(MultDAE):
    """A MultDAE with scores (U, I) of its training users on top of its logits."""

    def __init__(self, scores: Tensor, log_a: nn.Parameter):
        super().__init__(random_state=0, training=TrainingOptions(precision="float32"), values="raw")
        self.scores, self.log_a = scores, log_a

    def _network(self, n_items: int) -> VAE:
        network = super()._network(n_items)
        network.likelihood = self._nll
        network.log_a = self.log_a  # a parameter of the network, so that it is trained with it
        return network

    def _nll(self, hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch) -> Tensor:
        logits = F.linear(hidden, weight, bias) + self.log_a.exp() * self.scores[batch.users]
        x = torch.zeros_like(logits).index_put_((batch.rows, batch.items), batch.values)
        return -(x * F.log_softmax(logits, dim=1)).sum(1)
