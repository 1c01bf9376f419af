"""What a model looks like inside."""

import importlib.util

import numpy as np
import pytest

from recvae import MultDAE, MultVAE
from recvae.benchmark import inspection
from recvae.benchmark.inspection import active_units, item_map
from recvae.models import EASE

QUICK = {"latent_dim": 6, "hidden_dims": (16,), "epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def model(split):
    return MultVAE(**QUICK).fit(split.train)


def test_units_are_active_whose_mean_differs_between_users(split, model):
    rows = split.test.fold_in
    found = active_units(model, rows)
    variances = model.encode(rows).mean.astype(np.float64).var(axis=0)
    assert found["variances"] == pytest.approx(sorted(variances, reverse=True), rel=1e-3)
    assert found["active"] == (variances > 0.01).sum()
    last = model.network_.encoder.state_dict()  # nobody's mean differs where it does not depend on the row
    silent = MultVAE(**QUICK).fit(split.train)
    silent.network_.encoder.load_state_dict({name: 0 * part for name, part in last.items()})
    assert active_units(silent, rows) == {"variances": [0.0] * 6, "active": 0}


def test_models_without_a_posterior_have_no_units(split):
    assert active_units(EASE().fit(split.train), split.test.fold_in) is None
    assert active_units(MultDAE(**QUICK).fit(split.train), split.test.fold_in) is None


def test_the_map_has_the_most_popular_items_in_their_order(split, model, monkeypatch):
    monkeypatch.setattr(inspection, "MAPPED", 40)
    found = item_map("MultVAE", model, split.train)
    counts = np.bincount(split.train.matrix.indices, minlength=split.train.n_items)
    assert found["users"] == sorted(counts.tolist(), reverse=True)[:40]
    places = [list(split.train.titles).index(title) for title in found["title"]]
    assert [split.train.genres[place] for place in places] == found["genres"]
    assert {len(found[key]) for key in ("x", "y", "title", "genres", "users")} == {40}
    assert max(map(abs, found["x"] + found["y"])) == pytest.approx(100)
    assert "t-SNE" in found["method"]
    assert found == item_map("MultVAE", model, split.train)


def test_neighbours_on_the_map_are_neighbours_to_the_model():
    random = np.random.default_rng(0)
    groups = np.repeat(np.eye(3, 20) * 8, 15, axis=0)
    vectors = (groups + random.normal(size=groups.shape)).astype(np.float32)
    for places, _ in (inspection._project(vectors), (inspection._principal(vectors, 2), "")):
        apart = np.linalg.norm(places[:, None] - places[None], axis=2)
        nearest = np.argsort(apart, axis=1)[:, 1]
        assert (nearest // 15 == np.arange(45) // 15).all()


def test_without_scikit_learn_it_is_principal_components(split, model, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else found(name))
    assert item_map("MultVAE", model, split.train)["method"] == "PCA"


def test_models_without_an_output_layer_have_no_map(split):
    assert item_map("EASE", EASE().fit(split.train), split.train) is None
