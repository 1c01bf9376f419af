"""The comparison of exported models with torch: lists that are the same, and how far off others are."""

import numpy as np
import pytest

from benchmarks.speed import exports
from recvae import MultDAE


@pytest.fixture(scope="module")
def model(split):
    return MultDAE(latent_dim=8, epochs=1, random_state=0).fit(split.train, show_progress=False)


def own(model, rows, n):
    return model.recommend(np.arange(rows.shape[0]), rows, N=n)


def test_each_engine_gives_the_model_s_lists(model, split):
    found = {name: exports.compare(model, ranker, split.test.fold_in) for name, ranker in exports._engines(model)}
    assert list(found) == ["torch", "onnxruntime", "numpy"]
    for case in found.values():
        assert case["equal"] > 0.95
        assert case["apart"] < 1e-5
        assert case["ms"] > 0
    cases = [{"model": "MultDAE", "engine": name} | case for name, case in found.items()]
    assert "| MultDAE | torch | 100.00% | 0.0e+00 |" in exports.exports_table({"cases": cases})


def test_a_list_that_is_wrong_is_seen(model, split):
    """For one user the two best change places; for another the last is one that comes much later."""
    rows = split.test.fold_in

    def wrong(rows, n):
        ids, scores = own(model, rows, n)
        if len(ids) > 1:
            ids[0, [0, 1]] = ids[0, [1, 0]]
            ids[1, 5] = ids[1, 40]
        return ids, scores

    case = exports.compare(model, wrong, rows)
    assert case["equal"] == pytest.approx(1 - 2 / rows.shape[0])
    assert case["apart"] > 0.1
