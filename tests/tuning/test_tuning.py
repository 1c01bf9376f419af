import numpy as np
import pytest

from recvae import MultVAE, OutputOptions, evaluate, fit_split, per_user_split
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidParameterError, NotFittedError, UnknownUsersError
from recvae.models.baselines import ALS, BPR
from recvae.tuning.selection import choose

QUICK = {"latent_dim": 8, "hidden_dims": (16,), "random_state": 0}


@pytest.fixture(scope="module")
def known():
    return per_user_split(make_sample(n_users=300, n_items=80).interactions)


def test_settings_are_chosen_on_validation_users(split):
    candidates = [MultVAE(epochs=1, kl_cap=100.0, kl_schedule="constant"), MultVAE(epochs=8, batch_size=50)]
    choice = choose(candidates, split, show_progress=False)
    assert (choice.params["epochs"], choice.settings_tried) == (8, 2)
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
    assert final.best_epoch_ == final.training.stop_epoch == model.best_epoch_
    assert np.argmax([epoch.valid for epoch in model.history_]) == model.best_epoch_ - 1
    # the schedule is that of the whole run
    assert [epoch.beta for epoch in final.history_] == [epoch.beta for epoch in model.history_][: model.best_epoch_]
    # it knows more than the one of which it takes the choice
    assert evaluate(final, known.test)["ndcg@100"].mean > evaluate(model, known.test)["ndcg@100"].mean
    again = MultVAE(**final.chosen_params()).fit(known.refit)
    ids, scores = (model.recommend([0], known.test.fold_in[[0]]) for model in (final, again))
    assert all((a == b).all() for a, b in zip(ids, scores, strict=True))


def test_the_cap_is_the_beta_at_which_validation_peaks(split):
    """Liang et al. 2018, section 2.2.2: anneal up to 1, note the best beta, train again up to there."""
    settings = {"epochs": 12, "batch_size": 40, "learning_rate": 0.02, "kl_anneal": 0.9, "dropout": 0.5} | QUICK
    settings["output"] = OutputOptions(item_biases="normal")
    calls, model = [], MultVAE(kl_cap=None, kl_schedule="cyclical", **settings)
    model.fit(split.train, valid=split.valid, callback=lambda *call: calls.append(call))
    first = MultVAE(kl_cap=1.0, **settings).fit(split.train, valid=split.valid)
    betas, valid = ([getattr(epoch, name) for epoch in first.history_] for name in ("beta", "valid"))
    assert 0 < model.kl_cap_ == betas[int(np.argmax(valid))] < 1
    second = MultVAE(kl_cap=model.kl_cap_, kl_schedule="cyclical", **settings).fit(split.train, valid=split.valid)
    ids, scores = (fitted.recommend([0], split.test.fold_in[[0]]) for fitted in (model, second))
    assert all((a == b).all() for a, b in zip(ids, scores, strict=True))
    assert [loss for _, _, loss in calls] == [epoch.loss for epoch in second.history_]  # of that run alone
    assert model.kl_cap is None
    assert model.chosen_params() == second.chosen_params()


def test_a_cap_found_is_that_of_the_fit_for_the_test(known):
    model = MultVAE(epochs=6, batch_size=20, learning_rate=0.02, kl_cap=None, **QUICK)
    final = fit_split(model, known)
    assert final.kl_cap == final.kl_cap_ == model.kl_cap_
    assert final.chosen_params() == model.chosen_params()


def test_a_cap_is_not_found_without_validation_users(split):
    with pytest.raises(InvalidParameterError, match=r"give fit's valid=, or a number such as kl_cap=0\.2"):
        MultVAE(kl_cap=None).fit(split.train)


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
