import numpy as np
import pytest
import torch
from scipy import sparse

from recvae.data.batches import DeviceRows
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError
from recvae.nn.samplers import SAMPLERS, make_sampler

CPU = torch.device("cpu")
N_USERS, N_ITEMS, BATCH = 40, 60, 8
every_kind = pytest.mark.parametrize("kind", SAMPLERS)


def some_matrix(seed=0):
    """Popular and rare items; each has someone."""
    random = np.random.default_rng(seed)
    had = random.random((N_USERS, N_ITEMS)) < np.linspace(0.02, 0.4, N_ITEMS)
    had[random.integers(N_USERS, size=N_ITEMS), np.arange(N_ITEMS)] = True
    return sparse.csr_matrix(had.astype(np.float32))


MATRIX = some_matrix()
ROWS = DeviceRows(MATRIX, CPU)
COUNTS = np.asarray((MATRIX > 0).sum(0)).ravel().astype(np.int64)


def made(kind, budget=20, counts=COUNTS, n_users=N_USERS, batch_size=BATCH):
    return make_sampler(kind, budget, counts, n_users, batch_size)


def a_batch(users=range(BATCH)):
    return next(ROWS.batches(torch.tensor(list(users)), N_USERS))


def within(draws, expected):
    """Whether the mean of draws (N, ...) is the expected, by 4 standard errors."""
    draws = np.asarray(draws)
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - expected) <= 4 * error + 1e-6 * np.abs(expected)).all()
    assert (draws.std(0) > 0).all()


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
@pytest.mark.parametrize("budget", [1, 20, 59])
def test_sums_over_all_items_are_estimated_without_bias(kind, budget):
    f = np.exp(np.random.default_rng(1).normal(size=(N_ITEMS, 3)))
    drawn, batch, draws = made(kind, budget), a_batch(), []
    for key in range(1500):
        items, weights = drawn.draw(batch, key)
        draws.append(weights.double().numpy() @ f[items.numpy()])
    within(draws, f.sum(0))


@pytest.mark.parametrize(("budget", "size", "user"), [(59, BATCH, 0), (59, 5, 7), (12, BATCH, 7), (12, 5, 0)])
def test_in_batch_sums_over_what_a_user_lacks_are_estimated_without_bias(budget, size, user):
    f = np.exp(np.random.default_rng(1).normal(size=N_ITEMS))
    had = MATRIX.toarray() > 0
    drawn, random = made("in-batch", budget), np.random.default_rng(2)
    others, draws = np.delete(np.arange(N_USERS), user), []
    for key in range(1500):
        batch = a_batch([user, *random.choice(others, size - 1, replace=False)])
        items, weights = (part.numpy() for part in drawn.draw(batch, key))
        draws.append((weights * f[items] * ~had[user, items]).sum())
    within(draws, f[~had[user]].sum())


@every_kind
def test_a_draw_is_of_its_key(kind):
    drawn, batch = made(kind), a_batch()
    first = drawn.draw(batch, 5)
    drawn.draw(batch, 6)
    for again in (drawn.draw(batch, 5), made(kind).draw(batch, 5)):
        assert torch.equal(first.items, again.items)
        assert torch.equal(first.weights, again.weights)
    others = [drawn.draw(batch, key) for key in (6, 5 + (1 << 64))]
    for other in others:
        assert not (first.items.tolist() == other.items.tolist() and torch.equal(first.weights, other.weights))


@every_kind
@pytest.mark.parametrize("budget", [1, 20, 59])
def test_items_are_distinct_and_ascending_with_weights_above_zero(kind, budget):
    for key in range(20):
        items, weights = made(kind, budget).draw(a_batch(), key)
        assert items.dtype == torch.int64
        assert weights.dtype == torch.float32
        assert (items.diff() > 0).all()
        assert 1 <= len(items) <= budget
        assert len(items) == len(weights)
        assert ((weights > 0) & weights.isfinite()).all()
        assert items.min() >= 0
        assert items.max() < N_ITEMS


def test_an_item_drawn_more_than_once_is_there_once_with_the_sum_of_its_weights():
    counts = np.array([1_000_000, 0, 0, 0, 0, 0, 0])
    items, weights = made("popularity", 6, counts, n_users=1_000_000).draw(a_batch(), 0)
    share = (counts + 1.0) ** 0.75
    assert items[0] == 0
    assert weights[0] == pytest.approx(share.sum() / share[0] * 5 / 6, rel=0.25)  # 5 or 6 of the 6 draws


@every_kind
def test_a_budget_of_all_items_gives_all_with_weight_one(kind):
    for budget in (N_ITEMS, 10 * N_ITEMS):
        items, weights = made(kind, budget).draw(a_batch(), 3)
        assert torch.equal(items, torch.arange(N_ITEMS))
        assert (weights == 1).all()


def test_in_batch_weights_are_finite_whatever_the_batch():
    everyone = a_batch(range(N_USERS))
    items, weights = made("in-batch", 59).draw(everyone, 0)
    assert len(items) <= 59 < MATRIX.shape[1]
    assert weights.isfinite().all()
    alone = made("in-batch", 59).draw(a_batch([3]), 0)
    assert alone.weights.isfinite().all()
    no_events = next(DeviceRows(sparse.csr_matrix((3, N_ITEMS), dtype=np.float32), CPU).batches(torch.arange(3), 3))
    assert len(made("in-batch").draw(no_events, 0).items) == 0
    unseen = made("in-batch", 59, np.zeros(N_ITEMS, dtype=np.int64)).draw(a_batch(), 0)
    assert unseen.weights.isfinite().all()


def test_the_chance_to_be_in_a_batch_is_the_hypergeometric():
    from scipy.stats import hypergeom

    drawn = made("in-batch", 59)
    chances = drawn.chances(BATCH)
    for count in range(1, COUNTS.max() + 1):
        assert chances[count] == pytest.approx(1 - hypergeom(N_USERS - 1, count, BATCH - 1).pmf(0), rel=1e-10)
    assert (made("in-batch", 59, counts=np.full(N_ITEMS, N_USERS)).chances(BATCH)[-BATCH:] == 1).all()


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_a_large_catalogue_is_drawn_from_evenly(kind):
    items, weights = made(kind, 1000, np.ones(10**6, dtype=np.int64)).draw(a_batch(), 0)
    assert np.histogram(items.numpy(), 10, (0, 10**6))[0].tolist() == [100] * 10
    np.testing.assert_allclose(weights.numpy(), 1000, rtol=1e-5)


def test_bad_input_is_a_sentence():
    with pytest.raises(UnknownNameError, match="There is no sampler of negatives called 'unifrm'; did you mean uni"):
        made("unifrm")
    for wrong in ({"budget": 0}, {"n_users": 0}, {"batch_size": -1}):
        with pytest.raises(InvalidParameterError, match=f"Expected {next(iter(wrong))} of 1 or more, got"):
            made("uniform", **wrong)
    for counts in (np.ones((2, 2), dtype=int), np.ones(3), np.zeros(0, dtype=int)):
        with pytest.raises(InvalidDataError, match="Expected one integer for each item, got an array of"):
            made("uniform", counts=counts)
    for counts in (np.array([-1, 3]), np.array([0, N_USERS + 1])):
        with pytest.raises(InvalidDataError, match="Expected counts of items from 0 to the 40 users, got"):
            made("in-batch", counts=counts)
    for key in (-1, 1 << 128):
        with pytest.raises(InvalidParameterError, match="Expected a key from 0 to"):
            made("uniform").draw(a_batch(), key)
