"""The benchmarks of models that grow: what they hide is hidden."""

import numpy as np
import pytest
from scipy import sparse

from benchmarks.accuracy.cold import AMONG_ALL, AMONG_COLD, AUC, EVERYTHING, features, hide, measured
from benchmarks.accuracy.growing import grow
from recvae import load_dataset


@pytest.fixture(scope="module")
def cold():
    return hide("sample", None, 98765)


def test_test_users_are_seen_without_the_hidden_items(cold):
    assert cold.train.n_items - cold.n_old == int(0.1 * cold.train.n_items)
    assert cold.new.fold_in[:, cold.n_old :].nnz == 0
    assert cold.new.held_out[:, : cold.n_old].nnz == 0
    assert cold.new.held_out.multiply(cold.everything.held_out).nnz == cold.new.held_out.nnz
    assert (np.diff(cold.new.held_out.indptr) > 0).all()


def test_whoever_knows_what_is_hidden_has_all_of_it_and_chance_half_of_the_pairs(cold):
    knows = measured(cold, cold.everything.held_out.toarray())
    assert knows == pytest.approx(dict.fromkeys((AUC, AMONG_COLD, AMONG_ALL, EVERYTHING), 1.0))
    chance = measured(cold, np.random.default_rng(0).random(cold.new.fold_in.shape))
    assert chance[AUC] == pytest.approx(0.5, abs=0.05)


def test_features_are_genres_and_years():
    data = load_dataset("sample")
    found = features(data).toarray()
    names = sorted({name for genre in data.genres for name in genre.split("|")})
    for item in (0, 17):
        assert [names[n] for n in np.flatnonzero(found[item, : len(names)])] == sorted(data.genres[item].split("|"))
        year = int(data.titles[item][-5:-1])
        assert found[item, len(names) :] @ np.arange(1910, 2021, 10) == pytest.approx(min(year, 2020), abs=5)


def test_what_is_later_is_new_to_the_first_fit():
    growth = grow("sample", None, 98765)
    assert not set(growth.first.user_ids) & set(growth.later.user_ids)
    assert growth.first.n_items == growth.later.n_items - int(0.2 * growth.later.n_items)
    assert growth.later.item_ids[: growth.first.n_items].tolist() == growth.first.item_ids.tolist()
    assert growth.both.n_events == growth.first.n_events + growth.later.n_events
    assert sparse.csr_matrix(growth.both.matrix[: growth.first.n_users])[:, growth.first.n_items :].nnz == 0
