"""The measurement behind the page on the ELBO: its parts by hand, a run on small data, going on where it stopped."""

import json

import numpy as np
import pytest
from scipy import sparse

from benchmarks.__main__ import main
from benchmarks.latent import elbo


@pytest.fixture
def small(monkeypatch, split):
    """Small models, few caps, the embedded sample's items with genres that fit."""
    monkeypatch.setattr(elbo, "load_split", lambda dataset, home: split)
    monkeypatch.setattr(
        elbo, "genres_of", lambda dataset, home: lambda ids: np.eye(6, dtype=bool)[np.arange(len(ids)) % 6]
    )
    monkeypatch.setattr(elbo, "OPTIONS", {"random_state": 0, "epochs": 3, "hidden_dims": (8,)})
    monkeypatch.setattr(elbo, "PLANE_OPTIONS", {"latent_dim": 2})
    monkeypatch.setattr(elbo, "CAPS", (0.2, 1.0))
    monkeypatch.setattr(elbo, "PLANE_CAPS", (0.2,))


def test_a_run_goes_on_where_it_stopped(small, monkeypatch, tmp_path):
    out = tmp_path / "results.json"
    assert main(["elbo", "--out", str(out)]) == 0
    first = json.loads(out.read_text())
    assert list(first["caps"]) == ["0.2", "1"]
    for found in first["caps"].values():
        assert len(found["training"]["kl"]) == 3
        assert 0 < found["nearest"]["prior"] < 1
        assert found["distortion"] > 0
    shares = first["caps"]["0.2"]["walk"]
    assert sum(share[0] for share in shares.values()) == pytest.approx(1)
    plane = first["planes"]["0.2"]
    assert np.shape(plane["places"]) == (first["users"], 2)
    assert 0 <= plane["neighbours of the same favourite"] <= 1
    # what is there stays; what is missing is measured again, to the same figures
    del first["caps"]["1"]
    first["caps"]["0.2"]["rate"] = -1.0
    out.write_text(json.dumps(first))
    assert main(["elbo", "--out", str(out)]) == 0
    again = json.loads(out.read_text())
    assert again["caps"]["0.2"]["rate"] == -1.0
    assert list(again["caps"]) == ["0.2", "1"]


def test_both_estimators_of_the_gradient_mean_the_same(split, monkeypatch):
    """In the mean over many draws they agree, and the one through z is the calmer."""
    model = elbo.MultVAE(latent_dim=2, epochs=2, random_state=0, hidden_dims=()).fit(split.train, show_progress=False)
    noise = elbo.gradient_noise(model, elbo.whole_rows(split.valid, "binary")[:10])
    assert 0 < noise["reparameterised"] < noise["score function"]


def test_a_favourite_is_what_a_user_has_more_of_than_others():
    genres = np.eye(3, dtype=bool)[[0, 0, 1, 2]]
    train = sparse.csr_matrix(np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1]], dtype=np.float32))
    rows = sparse.csr_matrix(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32))
    assert elbo.favourites(rows, train, genres).tolist() == [0, 1, 2]


def test_neighbours_alike_by_hand(monkeypatch):
    monkeypatch.setattr(elbo, "NEIGHBOURS", 1)
    places = np.array([[0, 0], [0, 1], [5, 0], [5, 2]], dtype=np.float32)
    assert elbo.alike(places, np.array([0, 0, 1, 0])) == 0.5
