import numpy as np
import pytest

from recvae import MultVAE, evaluate, fit_split, per_user_split
from recvae.baselines import ALS, BPR
from recvae.errors import NotFittedError, UnknownUsersError
from recvae.sample import make_sample
from recvae.tuning import choose

QUICK = {"latent_dim": 8, "hidden_dims": (16,), "random_state": 0}


@pytest.fixture(scope="module")
def known():
    return per_user_split(make_sample(n_users=300, n_items=80).interactions)


def test_settings_are_chosen_on_validation_users(split):
    candidates = [MultVAE(epochs=1, kl_cap=100.0, kl_schedule="constant"), MultVAE(epochs=30, batch_size=50)]
    choice = choose(candidates, split, show_progress=False)
    assert (choice.params["epochs"], choice.settings_tried) == (30, 2)
    assert choice.seconds > 0
    one = choose(candidates[:1], split, show_progress=False)
    assert (one.params["epochs"], one.settings_tried, one.seconds) == (1, 1, 0)


def test_where_validation_users_are_others_it_is_one_fit(split):
    model = MultVAE(epochs=3, **QUICK)
    assert fit_split(model, split) is model
    assert model.history_[0].valid is not None


def test_where_they_are_the_same_it_is_a_fit_on_all_as_long_as_was_best(known):
    model = MultVAE(epochs=12, batch_size=20, learning_rate=0.02, **QUICK)
    final = fit_split(model, known)
    assert [epoch.valid is None for epoch in final.history_] == [True] * model.best_epoch_
    assert final.best_epoch_ == final.stop_after == model.best_epoch_
    assert np.argmax([epoch.valid for epoch in model.history_]) == model.best_epoch_ - 1
    # the schedule is that of the whole run
    assert [epoch.beta for epoch in final.history_] == [epoch.beta for epoch in model.history_][: model.best_epoch_]
    # it knows more than the one of which it takes the choice
    assert evaluate(final, known.test)["ndcg@100"].mean > evaluate(model, known.test)["ndcg@100"].mean
    again = MultVAE(**final.chosen_params()).fit(known.refit)
    ids, scores = (model.recommend([0], known.test.fold_in[[0]]) for model in (final, again))
    assert all((a == b).all() for a, b in zip(ids, scores, strict=True))


def test_models_that_do_not_validate_are_fitted_once(known, monkeypatch):
    pytest.importorskip("implicit")
    fits, fit = [], ALS.fit
    monkeypatch.setattr(ALS, "fit", lambda self, *a, **k: (fits.append(a[0]), fit(self, *a, **k))[1])
    fit_split(ALS(factors=4), known)
    assert fits == [known.refit]


def test_what_is_refused(split):
    with pytest.raises(NotFittedError, match="fitted in this process"):
        _ = MultVAE().best_epoch_
    with pytest.raises(UnknownUsersError):
        fit_split(BPR(), split)
