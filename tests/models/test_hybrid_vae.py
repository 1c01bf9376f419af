"""HybridVAE: the calibration users, the weight of the linear path, the hill climb for its penalty, and files."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import EDLAE, HybridVAE, RecVAE, fit_split, load, per_user_split, strong_split
from recvae.datasets.sample import make_sample
from recvae.models import hybrid_vae, linear_choice
from recvae.models.autoencoder.options import n_epochs
from recvae.models.autoencoder.scoring import network_scores
from recvae.models.autoencoder.shape import Shape
from recvae.models.base import FitRun
from recvae.models.blending import (
    CalibrationUsers,
    best_joint_ndcg,
    best_power,
    best_weight,
    hill_climb,
    ndcg_by_user,
    weighted_sum,
)
from recvae.models.closed_form import solution_path
from recvae.models.hybrid_vae import ITEM_POWERS, PENALTIES, USER_POWERS

QUICK = {"epochs": 3, "batch_size": 60, "latent_dim": 8, "hidden_dim": 16, "depth": 2, "random_state": 0}


@pytest.fixture(scope="module")
def split():
    return strong_split(make_sample(n_users=400, n_items=150).interactions, heldout_users=80)


@pytest.fixture
def users(split):
    return CalibrationUsers(split.valid.fold_in, split.valid.held_out)


def oracle(users):
    """A scorer that knows what is held out."""
    hidden = torch.from_numpy(users.held_out.toarray())
    return lambda rows: hidden.clone()


def noise(rows):
    return torch.rand(rows.shape, generator=torch.Generator().manual_seed(0))


def test_the_weight_goes_to_the_scorer_that_knows(users):
    """Noise is below 1, and what is held out has 1: with such a weight it comes first."""
    knows = oracle(users)
    assert best_weight(noise, knows, users, users.fold_in, 1 / 8) > 1
    assert best_weight(knows, noise, users, users.fold_in, 1 / 8) < 1
    assert ndcg_by_user(knows, users) == pytest.approx(np.ones(np.count_nonzero(np.diff(users.held_out.indptr))))


@pytest.mark.parametrize("usual", [1 / 8, 1.0])
def test_where_all_weights_rank_alike_the_prior_chooses(users, usual):
    knows = oracle(users)
    assert best_weight(knows, knows, users, users.fold_in, usual) == pytest.approx(usual)


@pytest.mark.parametrize(
    ("shape", "ratio"),
    [
        (Shape(1_000, 1_000, 19_999), 1 / 8),  # thin
        (Shape(1_000, 1_000, 40_000), 2 / 5),  # one pair in 25 is an event
        (Shape(1_000, 1_000, 62_500), 1 / 2),
        (Shape(1_000, 1_000, 900_000), 1 / 2),
        (Shape(30_000, 40_000, 1_000_000), 1 / 8),
        (Shape(0, 0, 0), 1 / 8),
    ],
)
def test_the_usual_share_of_the_linear_path_follows_the_density(shape, ratio):
    assert shape.linear_ratio() == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("shape", "recvae", "hybrid"),
    [
        (Shape(1_000, 2_000, 20_000), 15, 12),  # few items
        (Shape(1_000, 2_000, 400_000), 15, 12),
        (Shape(1_000, 2_000, 19_999), 10, 8),  # thin
        (Shape(1_000, 2_001, 20_000), 10, 8),  # sparse
        (Shape(1_000, 2_001, 300_000), 10, 6),  # dense
    ],
)
def test_epochs_by_default_follow_from_the_data(shape, recvae, hybrid):
    assert n_epochs(RecVAE(), shape) == recvae
    assert n_epochs(HybridVAE(), shape) == hybrid
    assert n_epochs(HybridVAE(epochs=3), shape) == 3


def test_the_unit_of_scores_does_not_matter(users):
    knows = oracle(users)
    one = best_weight(noise, knows, users, users.fold_in, 1 / 8)
    other = best_weight(noise, lambda rows: 1000 * knows(rows), users, users.fold_in, 1 / 8)
    assert other == pytest.approx(one / 1000)


def test_without_calibration_users_both_scores_have_equal_deviations():
    no_one = CalibrationUsers(sparse.csr_matrix((0, 9)), sparse.csr_matrix((0, 9)))
    rows = sparse.csr_matrix(np.eye(9))
    assert best_weight(noise, lambda rows: 4 * noise(rows), no_one, rows, 1 / 8) == pytest.approx(0.25)


def test_constant_scores_get_no_extreme_weight(users):
    def silent(rows):
        return torch.zeros(rows.shape)

    assert 0 <= best_weight(noise, silent, users, users.fold_in, 1 / 8) < 100
    assert 0 < best_weight(silent, oracle(users), users, users.fold_in, 1 / 8) < 100


def test_a_user_with_huge_scores_does_not_set_the_unit_of_weights(users):
    knows = oracle(users)

    def with_outlier(rows):
        scores = knows(rows)
        scores[0] *= 1e4
        return scores

    usual = best_weight(noise, knows, users, users.fold_in, 1 / 8)
    assert best_weight(noise, with_outlier, users, users.fold_in, 1 / 8) == pytest.approx(usual, rel=0.3)


def test_clear_evidence_overrules_the_prior(users):
    """Scores that are wrong about each user, and others that know: only a large weight ranks well."""

    def ndcg_by_best_weight(n_users, **about):
        few = users._replace(fold_in=users.fold_in[:n_users], held_out=users.held_out[:n_users], **about)

        def knows(rows):
            return oracle(few)(rows) + noise(rows).flip(1)

        def wrong(rows):
            return noise(rows) - oracle(few)(rows)

        weight = best_weight(wrong, knows, few, few.fold_in, 1 / 8)
        return ndcg_by_user(partial(weighted_sum, wrong, knows, weight), few).mean()

    assert ndcg_by_best_weight(80) > 0.98
    assert ndcg_by_best_weight(12) > 0.98
    assert ndcg_by_best_weight(8) < 0.96  # so few users are no evidence
    assert ndcg_by_best_weight(12, times=4) < 0.96  # nor are several rows of few users


def test_holding_out_takes_each_event_once():
    rows = sparse.random(50, 30, 0.4, format="csr", random_state=0)
    fold_in, held_out, *_ = CalibrationUsers.holding_out(rows, np.random.default_rng(0))
    assert ((fold_in + held_out) != rows).nnz == 0
    assert fold_in.multiply(held_out).nnz == 0
    lengths = np.diff(rows.indptr)
    assert (np.diff(held_out.indptr) == -(-lengths // 5)).all()  # a fifth of each user's, rounded up
    other = CalibrationUsers.holding_out(rows, np.random.default_rng(1))
    assert (other.fold_in != fold_in).nnz


def test_held_out_five_times_each_event_is_held_out_once():
    rows = sparse.random(20, 30, 0.2, format="csr", random_state=0)  # some users have fewer events than five
    fold_in, held_out, *_ = CalibrationUsers.holding_out(rows, np.random.default_rng(0), 5)
    assert fold_in.shape == held_out.shape == (100, 30)
    assert ((fold_in + held_out) != sparse.vstack([rows] * 5)).nnz == 0
    assert (sum(held_out[i : i + 20] for i in range(0, 100, 20)) != rows).nnz == 0


@pytest.mark.parametrize("top", range(7))
def test_a_climb_ends_at_the_top_of_a_hill(top):
    asked = []
    assert hill_climb(lambda index: asked.append(index) or -abs(index - top), 7) == top
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_the_linear_path_learns_from_calibration_users_once_all_is_chosen(split, monkeypatch, form):
    solved = []  # users, and neighbours of an item
    fit = EDLAE.fit

    def spy(self, rows, *args, **more):
        solved.append((rows.shape[0], self.neighbours))
        return fit(self, rows, *args, **more)

    monkeypatch.setattr(EDLAE, "fit", spy)
    monkeypatch.setattr(linear_choice, "FEW_NEIGHBOURS", 7)
    n_users, n_calibration = split.train.n_users, int(0.25 * split.train.n_users)
    given = {"l2": 10.0, "user_power": 0.5, "item_power": 0.0, "low_pass": 0.0}
    model = HybridVAE(**given, calibration_share=0.25, form=form, **QUICK)
    linear = model.fit(split.train).linear_
    assert solved == [(n_users - n_calibration, 7), (n_users, 200)]
    alone = EDLAE(values="raw", l2=10.0, user_power=0.5, form=form).fit(split.train.matrix)
    assert (linear.weights_ != alone.weights_).sum() == 0
    solved.clear()
    model.fit(split.train, valid=split.valid)  # validation users are not in training
    assert solved == [(n_users, 200)]


@pytest.mark.parametrize(("form", "constant"), [("dense", "COMPARED"), ("sparse", "COMPARED_SPARSE")])
def test_paths_are_compared_by_the_most_popular_items(split, monkeypatch, form, constant):
    monkeypatch.setattr(linear_choice, constant, 30)
    monkeypatch.setattr(linear_choice, "COMPARING_ROWS", 0)
    asked = {}

    def path(models, rows, in_sparse_form, neighbours):
        asked.update(rows=rows, in_sparse_form=in_sparse_form)
        return solution_path(models, rows, in_sparse_form, neighbours)

    def of_users(score, users):
        asked["held_out"] = users.held_out
        return ndcg_by_user(score, users)

    monkeypatch.setattr(linear_choice, "solution_path", path)
    monkeypatch.setattr(linear_choice, "ndcg_by_user", of_users)
    linear = HybridVAE(form=form, low_pass=0.0, **QUICK).fit(split.train, valid=split.valid).linear_
    counts = np.diff(split.train.matrix.tocsc().indptr)
    popular = np.sort(np.argsort(-counts, kind="stable")[:30])
    assert (asked["rows"] != split.train.matrix[:, popular]).nnz == 0
    assert asked["held_out"].nnz == split.valid.held_out[:, popular].nnz
    assert asked["in_sparse_form"] is (form == "sparse")
    assert linear.l2 in PENALTIES
    assert linear.item_power in ITEM_POWERS
    powers = {"user_power": linear.user_power, "item_power": linear.item_power}
    fitted = EDLAE(values="raw", l2=linear.l2, form=form, **powers)
    fitted.fit(split.train.matrix)
    assert (linear.weights_ != fitted.weights_).sum() == 0  # of all items


def test_where_users_are_known_the_choices_go_into_the_refit():
    split = per_user_split(make_sample(n_users=300, n_items=80).interactions, valid_share=0.2)
    model = fit_split(HybridVAE(**QUICK), split)
    assert model.l2 in PENALTIES
    assert model.item_power in ITEM_POWERS
    assert model.user_power in USER_POWERS
    assert model.training.stop_epoch in (1, 2, 3)
    assert model.trained_on_ == split.refit.fingerprint()


def test_the_penalty_is_a_step_below_the_best_for_calibration_users(split, users, monkeypatch):
    """Since the path is added to a network.

    And no training users are added to the calibration users, where there are as many as are wanted.
    """
    monkeypatch.setattr(linear_choice, "COMPARING_ROWS", users.fold_in.shape[0])

    def ndcg_of(l2, item_power=0.0, user_power=0.5):
        path = EDLAE(values="raw", l2=l2, user_power=user_power, item_power=item_power).fit(split.train.matrix)
        return ndcg_by_user(path._score, users)

    def check_powers(linear, l2):
        assert linear.user_power == max(USER_POWERS, key=lambda power: ndcg_of(l2, user_power=power).sum())
        by_item_power = {power: ndcg_of(l2, power, linear.user_power) for power in ITEM_POWERS}
        assert linear.item_power == best_power(by_item_power)

    linear = HybridVAE(**QUICK).fit(split.train, valid=split.valid).linear_
    position = PENALTIES.index(linear.l2) + 1
    best = PENALTIES[position]
    for l2 in PENALTIES[position - 1 : position + 2]:
        assert ndcg_of(best).sum() >= ndcg_of(l2).sum()
    check_powers(linear, best)
    linear = HybridVAE(l2=30.0, **QUICK).fit(split.train, valid=split.valid).linear_
    assert linear.l2 == 30.0
    check_powers(linear, 30.0)
    linear = HybridVAE(user_power=0.7, item_power=0.4, **QUICK).fit(split.train, valid=split.valid).linear_
    assert (linear.user_power, linear.item_power) == (0.7, 0.4)


def test_an_exponent_other_than_zero_needs_a_gain_or_many_users():
    def by_power(rows):
        return {power: np.full(rows, ndcg) for power, ndcg in {-0.2: 0.3, 0.0: 0.4, 0.1: 0.401, 0.4: 0.402}.items()}

    assert best_power(by_power(100)) == 0.0
    assert best_power(by_power(1_000)) == 0.1
    assert best_power(by_power(100_000)) == 0.4
    assert best_power(by_power(100) | {0.4: np.full(100, 0.5)}) == 0.4
    assert best_power({0.2: np.zeros(0), -0.1: np.zeros(0)}) == -0.1  # no one to compare by


@pytest.mark.parametrize("wanted", [100, 10_000])
def test_penalties_are_compared_by_training_users_too(split, users, wanted, monkeypatch):
    monkeypatch.setattr(linear_choice, "COMPARING_ROWS", wanted)
    rows = split.train.matrix
    solved, compared = linear_choice._comparison(rows, users, seed=0, n_items=10_000)
    more = min(wanted - users.fold_in.shape[0], int(0.15 * rows.shape[0]))
    assert solved.shape[0] == rows.shape[0] - more
    assert compared.fold_in.shape[0] == users.fold_in.shape[0] + more
    assert (
        solved.nnz + compared.fold_in.nnz + compared.held_out.nnz == rows.nnz + users.fold_in.nnz + users.held_out.nnz
    )


def test_of_users_who_are_in_training_the_held_out_events_choose(monkeypatch):
    """All rows are learned from, and the comparison takes none of them."""
    split = per_user_split(make_sample(n_users=300, n_items=80).interactions, valid_share=0.2)
    solved = []

    def path(models, rows, *args):
        solved.append(rows)
        return solution_path(models, rows, *args)

    monkeypatch.setattr(linear_choice, "solution_path", path)
    monkeypatch.setattr(hybrid_vae, "ENOUGH_KNOWN", np.count_nonzero(np.diff(split.valid.held_out.indptr)))
    model = HybridVAE(**QUICK)
    model.fit(split.train, valid=split.valid)
    assert all((rows != split.train.matrix).nnz == 0 for rows in solved)
    users = CalibrationUsers(split.valid.fold_in, split.valid.held_out)
    network, path = (lambda rows: network_scores(model.network_, rows)), model.linear_._score
    assert best_joint_ndcg(network, path, users) == pytest.approx(max(epoch.valid for epoch in model.history_))
    assert model.weight_ == best_weight(network, path, users, split.train.matrix, 1 / 8)
    monkeypatch.setattr(hybrid_vae, "ENOUGH_KNOWN", 2_000)
    solved.clear()
    HybridVAE(**QUICK).fit(split.train, valid=split.valid)  # too few of them: training users are set aside
    assert all(rows.shape[0] < split.train.n_users for rows in solved)


def test_of_many_validation_users_some_choose(split, monkeypatch):
    """Of linear paths, more than of weights; they are among the validation users."""
    chosen_by = {}

    def spy(name):
        function = getattr(hybrid_vae, name)

        def noted(*args):
            chosen_by[name] = next(arg for arg in args if isinstance(arg, CalibrationUsers))
            return function(*args)

        monkeypatch.setattr(hybrid_vae, name, noted)

    for name in ("chosen_linear", "best_joint_ndcg", "best_weight"):
        spy(name)
    monkeypatch.setattr(hybrid_vae, "MAX_CELLS", 0)
    monkeypatch.setattr(hybrid_vae, "MAX_CELLS_OF_PATHS", 30 * split.train.n_items)
    monkeypatch.setattr(hybrid_vae, "ENOUGH_KNOWN", 20)
    HybridVAE(**QUICK).fit(split.train, valid=split.valid)
    sizes = {name: users.fold_in.shape[0] for name, users in chosen_by.items()}
    assert sizes == {"chosen_linear": 30, "best_joint_ndcg": 20, "best_weight": 20}
    whole = {tuple(row) for row in (split.valid.fold_in + 2 * split.valid.held_out).toarray()}
    for users in chosen_by.values():
        assert {tuple(row) for row in (users.fold_in + 2 * users.held_out).toarray()} <= whole


def test_the_epoch_is_kept_that_ranks_best_with_the_linear_path(split):
    model = HybridVAE(**QUICK).fit(split.train, valid=split.valid)
    users = CalibrationUsers(split.valid.fold_in, split.valid.held_out)
    joint = best_joint_ndcg(lambda rows: network_scores(model.network_, rows), model.linear_._score, users)
    assert joint == pytest.approx(max(epoch.valid for epoch in model.history_))


def test_of_few_calibration_users_a_moving_average_over_epochs_counts(split, monkeypatch):
    ndcgs = iter([0.1, 0.5, 0.2])
    monkeypatch.setattr(hybrid_vae, "best_joint_ndcg", lambda *_: next(ndcgs))
    model = HybridVAE(calibration_share=0.25, **QUICK).fit(split.train)
    assert [epoch.valid for epoch in model.history_] == pytest.approx([0.1, 0.3, 0.25])
    assert model.best_epoch_ == 2


def test_fewer_than_thirty_users_choose_no_epoch(split):
    model = HybridVAE(calibration_share=0.1, **QUICK).fit(split.train)
    assert [epoch.valid for epoch in model.history_] == [None] * 3
    assert model.best_epoch_ == 3


def test_users_of_one_event_are_no_calibration_users():
    rows = sparse.csr_matrix((np.ones(3), ([4, 4, 7], [0, 1, 2])), shape=(20, 5))
    learned, users = HybridVAE(calibration_share=0.5, random_state=0)._calibration_users(rows, FitRun("binary", False))
    assert learned.shape[0] == 20
    assert users.fold_in.shape[0] == 0


def test_scores_are_those_of_both_parts(split):
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
    assert chosen["training"].stop_epoch == model.best_epoch_


def test_the_file_holds_the_path_and_its_weight(split, tmp_path):
    for form in ("dense", "sparse"):
        model = HybridVAE(form=form, neighbours=20, **QUICK).fit(split.train, valid=split.valid)
        model.save(tmp_path / form)
        again = load(tmp_path / form)
        rows = split.test.fold_in[:5]
        assert torch.equal(again._score(rows), model._score(rows))
        assert (again.linear_.l2, again.weight_) == (model.linear_.l2, model.weight_)
        assert again.linear_.get_params() == model.linear_.get_params()


def test_a_sample_of_users_has_those_with_held_out_events():
    rows = sparse.csr_matrix(np.ones((50, 4), dtype=np.float32))
    held_out = sparse.csr_matrix((np.ones(2, np.float32), ([7, 30], [1, 2])), shape=(50, 4))
    users = CalibrationUsers(rows, held_out).sample(10, seed=0)
    assert users.n_active == users.fold_in.shape[0] == 2
    nobody = CalibrationUsers(rows, sparse.csr_matrix((50, 4), dtype=np.float32)).sample(10, seed=0)
    assert nobody.fold_in.shape[0] == 10
