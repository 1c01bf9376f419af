"""The join of a VAE and a linear path: what its weight is learned from, and what it finds."""

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import HybridVAE, fit_split, load, per_user_split, strong_split
from recvae.datasets.sample import make_sample
from recvae.models.base import FitRun
from recvae.models.blending import Strangers, best_weight, climb, quality
from recvae.models.hybrid_vae import LADDER

QUICK = {"epochs": 3, "latent_dim": 8, "hidden_dim": 16, "depth": 2, "random_state": 0}


@pytest.fixture(scope="module")
def split():
    return strong_split(make_sample(n_users=400, n_items=150).interactions, heldout_users=80)


@pytest.fixture
def strangers(split):
    return Strangers(split.valid.fold_in, split.valid.held_out)


def oracle(strangers):
    """A voice that knows what is hidden."""
    hidden = torch.from_numpy(strangers.held_out.toarray())
    return lambda rows: hidden.clone()


def noise(rows):
    return torch.rand(rows.shape, generator=torch.Generator().manual_seed(0))


def test_the_weight_goes_to_the_voice_that_knows(strangers):
    """Noise is below 1, and what is hidden has 1: with such a weight it comes first."""
    knows = oracle(strangers)
    assert best_weight(noise, knows, strangers, strangers.fold_in) > 1
    assert best_weight(knows, noise, strangers, strangers.fold_in) < 1
    assert quality(knows, strangers) == pytest.approx((np.diff(strangers.held_out.indptr) > 0).sum())


def test_the_unit_of_a_voice_does_not_matter(strangers):
    knows = oracle(strangers)
    one = best_weight(noise, knows, strangers, strangers.fold_in)
    other = best_weight(noise, lambda rows: 1000 * knows(rows), strangers, strangers.fold_in)
    assert other == pytest.approx(one / 1000)


def test_without_strangers_both_voices_spread_alike():
    nobody, rows = Strangers(sparse.csr_matrix((0, 9)), sparse.csr_matrix((0, 9))), sparse.csr_matrix(np.eye(9))
    assert best_weight(noise, lambda rows: 4 * noise(rows), nobody, rows) == pytest.approx(0.25)


def test_a_voice_that_says_nothing_is_no_reason_to_shout(strangers):
    silent = best_weight(noise, lambda rows: torch.zeros(rows.shape), strangers, strangers.fold_in)
    assert 0 < silent < 100


def test_hiding_takes_each_event_once():
    rows = sparse.random(50, 30, 0.4, format="csr", random_state=0)
    fold_in, held_out = Strangers.hiding(rows, 0.2, np.random.default_rng(0))
    assert ((fold_in + held_out) != rows).nnz == 0
    assert fold_in.multiply(held_out).nnz == 0
    assert 0.1 < held_out.nnz / rows.nnz < 0.3


@pytest.mark.parametrize("top", range(7))
def test_a_climb_ends_at_the_top_of_a_hill(top):
    asked = []
    assert climb(lambda place: asked.append(place) or -abs(place - top), 7) == top


def test_the_path_is_solved_without_those_whom_the_weight_is_learned_from(split, monkeypatch):
    seen = {}
    original = HybridVAE._path

    def spy(self, l2):
        path = original(self, l2)
        fit = path.fit
        path.fit = lambda rows, *args, **more: seen.setdefault("rows", rows) is None or fit(rows, *args, **more)
        return path

    monkeypatch.setattr(HybridVAE, "_path", spy)
    HybridVAE(l2=10.0, aside=0.25, **QUICK).fit(split.train)
    assert seen.pop("rows").shape[0] == split.train.n_users - int(0.25 * split.train.n_users)
    HybridVAE(l2=10.0, aside=0.25, **QUICK).fit(split.train, valid=split.valid)
    assert seen["rows"].shape[0] == split.train.n_users  # validation users are strangers enough


def test_where_users_are_known_the_choices_go_into_the_refit():
    split = per_user_split(make_sample(n_users=300, n_items=80).interactions, valid_share=0.2)
    model = fit_split(HybridVAE(**QUICK), split)
    assert model.l2 in LADDER
    assert model.stop_after in (1, 2, 3)
    assert model.trained_on_ == split.refit.fingerprint()


def test_users_without_anything_to_hide_are_not_put_aside():
    rows = sparse.csr_matrix((np.ones(3), ([4, 4, 7], [0, 1, 2])), shape=(20, 5))
    learned, strangers = HybridVAE(aside=0.5, random_state=0)._apart(rows, FitRun("binary", False))
    assert learned.shape[0] == 20
    assert strangers.fold_in.shape[0] == 0


def test_scores_are_those_of_both_voices(split):
    model = HybridVAE(**QUICK).fit(split.train, valid=split.valid)
    rows = split.test.fold_in[:5]
    both, path, weight = model._score(rows), model.linear_._score(rows), model.weight_
    model.weight_ = 0.0
    assert weight > 0
    assert torch.allclose(both, model._score(rows) + weight * path, atol=1e-5)


def test_a_fit_without_validation_repeats_the_choices(split):
    model = HybridVAE(**QUICK).fit(split.train, valid=split.valid)
    chosen = model.chosen_params()
    assert chosen["l2"] == model.linear_.l2
    assert chosen["stop_after"] == model.best_epoch_


def test_the_file_holds_the_path_and_its_weight(split, tmp_path):
    for form in ("dense", "sparse"):
        model = HybridVAE(form=form, neighbours=20, **QUICK).fit(split.train, valid=split.valid)
        model.save(tmp_path / form)
        again = load(tmp_path / form)
        rows = split.test.fold_in[:5]
        assert torch.equal(again._score(rows), model._score(rows))
        assert (again.linear_.l2, again.weight_) == (model.linear_.l2, model.weight_)
