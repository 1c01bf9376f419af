"""The benchmark of vector indexes, on few vectors: what it calls recall and what vectors it makes up."""

import numpy as np
import pytest

from benchmarks.speed import vectors
from recvae.errors import InvalidParameterError


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    items, users = (random.standard_normal((n, 8), dtype=np.float32) for n in (300, 20))
    np.save(tmp_path / "items.npy", vectors.expanded(items, 1000))
    np.save(tmp_path / "users.npy", users)
    return tmp_path


def test_more_vectors_are_trained_ones_with_noise():
    items = np.stack([np.arange(40), np.zeros(40), 100 * (np.arange(40) % 2)], axis=1).astype(np.float32)
    many = vectors.expanded(items, 5000)
    assert many.shape == (5000, 3)
    assert many.dtype == np.float32
    assert (many[:, 1] == 0).all()  # no noise where there is no spread
    np.testing.assert_allclose(many.mean(0), items.mean(0), rtol=0.05)
    np.testing.assert_allclose(many.var(0), (1 + vectors.NOISE**2) * items.var(0), rtol=0.05)


def test_recall_is_that_of_the_exact_lists(folder, monkeypatch):
    monkeypatch.setattr(vectors, "SETTINGS", {"exact": (0,), "ivf": (1, 126)})
    (exact,) = vectors.measure(folder, "exact")
    assert exact["recall"] == 1
    users, items = (np.load(folder / f"{name}.npy") for name in ("users", "items"))
    best = np.argsort(-users @ items.T, axis=1)[:, : vectors.K]
    assert (np.sort(np.load(folder / "exact.npy")) == np.sort(best)).mean() > 0.99
    few, all_lists = vectors.measure(folder, "ivf")
    assert few["recall"] < 0.9
    assert all_lists["recall"] > 0.99
    cases = [{"items": 1000, "index": "ivf"} | case for case in (few, all_lists)]
    assert "| 1,000 | ivf | 126 lists |" in vectors.vectors_table({"cases": cases})


def test_numbers_of_items():
    assert vectors.sizes_of("100000,200") == [100_000, 200]
    for text in ("many", "", "5"):
        with pytest.raises(InvalidParameterError, match="items"):
            vectors.sizes_of(text)
