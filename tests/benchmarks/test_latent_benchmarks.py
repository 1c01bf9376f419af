"""Benchmarks of the verbs on the posterior: their parts by hand, a run on small data."""

import json

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from benchmarks.__main__ import main
from benchmarks.latent import anomaly, exploration, generation, whole_rows
from benchmarks.latent.tables import anomaly_table, exploration_table, generation_table
from benchmarks.pages.figures.exploration import plot_exploration
from recvae import MultVAE, RecVAE

TABLES = {"anomaly": anomaly_table, "generation": generation_table, "exploration": exploration_table}
SMALL = {"latent_dim": 4, "learning_rate": 0.01, "batch_size": 70}
BRIEF = {
    "MultVAE": lambda **more: MultVAE(hidden_dims=(8,), epochs=8, **SMALL, **more),
    "RecVAE": lambda **more: RecVAE(hidden_dim=8, depth=2, epochs=4, **SMALL, **more),
}


@pytest.fixture
def briefly(monkeypatch, split):
    """Small models on a small split."""
    for module in (anomaly, generation, exploration):
        monkeypatch.setattr(module, "MODELS", BRIEF)
        monkeypatch.setattr(module, "load_split", lambda dataset, home: split)
    monkeypatch.setattr(anomaly, "PLANTINGS", 5)
    monkeypatch.setattr(generation, "TEMPERATURES", (1.0,))
    monkeypatch.setattr(exploration, "STRENGTHS", (0.0, 1.0, 8.0))


def run(name, tmp_path):
    assert main([name, "--out", str(tmp_path / "results.json")]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert TABLES[name](results).count("\n") > 2
    return results


def test_anomaly(briefly, tmp_path):
    for found in run("anomaly", tmp_path)["models"].values():
        assert found["held-out users"]["random"]["anomaly_score"] > 0.7
        for kinds in found.values():
            assert all(0 <= value <= 1 for by in kinds.values() for value in by.values())
            assert 0.2 < kinds["random"]["number of items"] < 0.8


def test_generation(briefly, tmp_path, split):
    results = run("generation", tmp_path)
    assert results["users"] == split.train.n_users
    for ways in results["models"].values():
        assert ways["aggregate, temperature 1"]["share"] > 0.5
        assert 0 < ways["aggregate, temperature 1"]["nearest"]["mean"] < 1


def test_exploration(briefly, tmp_path):
    results = run("exploration", tmp_path)
    for found in results["models"].values():
        assert found["recall@20"]["mean"][0] > found["recall@20"]["mean"][2]
        assert found["recall@20"]["std"][0] == 0
        assert found["recall@20"]["std"][2] > 0
    plot_exploration(results, tmp_path / "a.svg")
    assert "MultVAE" in (tmp_path / "a.svg").read_text()


def test_auroc_is_sklearn_s():
    random = np.random.default_rng(0)
    odd, usual = random.integers(0, 9, 30) + 1.0, random.integers(0, 9, 200) + 0.0
    expected = roc_auc_score(np.r_[np.ones(30), np.zeros(200)], np.r_[odd, usual])
    assert anomaly.auroc(odd, usual) == pytest.approx(expected)


def test_bots_have_real_sizes_and_the_items_of_their_kind(split):
    users, random = split.train.matrix, np.random.default_rng(0)
    sizes = np.diff(users.indptr)
    kinds = anomaly.bots(400, users, sizes, random)
    counts = np.bincount(users.indices, minlength=users.shape[1])
    for rows in kinds.values():
        assert rows.shape == (400, users.shape[1])
        assert rows.has_canonical_format
        assert np.isin(np.diff(rows.indptr), sizes).all()
        assert np.diff(rows.indptr).mean() == pytest.approx(sizes.mean(), rel=0.2)
    liking = {kind: counts[rows.indices].mean() for kind, rows in kinds.items()}
    assert liking["random"] == pytest.approx(counts.mean(), rel=0.05)
    assert liking["random"] < 0.95 * liking["popular"]
    real = {tuple(row.indices) for row in users}
    assert all(tuple(row.indices) in real for row in kinds["copies"])
    assert sum(tuple(row.indices) in real for row in kinds["popular"]) < 20


def test_the_nearest_user_by_hand(monkeypatch):
    monkeypatch.setattr(generation, "BLOCK", 2)
    users = sparse.csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], dtype=np.float32))
    rows = sparse.csr_matrix(np.array([[2, 3, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0] * 5], dtype=np.float32))
    assert generation.nearest(rows, users).tolist() == pytest.approx([1, 2 / 3, 0, 0])


def test_whole_rows_are_both_parts(split):
    rows = whole_rows(split.test, "binary")
    assert rows.nnz == split.test.fold_in.nnz + split.test.held_out.nnz
    assert set(rows.data.tolist()) == {1.0}
