import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recvae import Interactions, strong_split
from recvae.data.names import SPLIT_KINDS, SPLIT_OPTIONS
from recvae.data.splits import SPLITS, split_options
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError


def by_the_paper(matrix, user_ids, item_ids, n_heldout, seed):
    """The preprocessing of Liang et al. 2018 on plain lists. -> train, then (fold-in, held-out) by user, twice"""
    events = {
        user: sorted(item_ids[column] for column in matrix[row].indices) for row, user in enumerate(user_ids.tolist())
    }
    users = sorted(events)
    users = [users[place] for place in np.random.RandomState(seed).permutation(len(users))]
    train, valid, test = users[: -2 * n_heldout], users[-2 * n_heldout : -n_heldout], users[-n_heldout:]
    vocabulary = {item for user in train for item in events[user]}

    def proportion(part):
        random, drawn = np.random.RandomState(seed), {}
        for user in sorted(part):
            mine = [item for item in events[user] if item in vocabulary]
            held = []
            if len(mine) >= 5:
                held = [mine[i] for i in random.choice(len(mine), size=int(0.2 * len(mine)), replace=False)]
            if held:
                drawn[user] = ({item for item in mine if item not in held}, set(held))
        return drawn

    return {user: set(events[user]) for user in train}, proportion(valid), proportion(test)


def as_sets(matrix, users, items):
    return {user: set(items[matrix[row].indices].tolist()) for row, user in enumerate(users.tolist())}


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0.05, 0.5))
def test_it_draws_as_the_paper_does(seed, n_heldout, density):
    random = np.random.default_rng(seed)
    dense = random.random((30, 25)) < density
    dense[:, 0] = True
    user_ids, item_ids = random.permutation(1000)[:30], random.permutation(1000)[:25]
    data = Interactions.from_matrix(sparse.csr_matrix(dense), user_ids=user_ids, item_ids=item_ids)
    train, valid, test = by_the_paper(data.matrix, user_ids, item_ids, n_heldout, seed)
    if not (valid and test):
        with pytest.raises(InvalidDataError, match="users with at least 5 events on items of the training users"):
            strong_split(data, n_heldout, seed)
        return
    split = strong_split(data, n_heldout, seed)
    assert as_sets(split.train.matrix, split.train.user_ids, split.items) == train
    for part, expected in ((split.valid, valid), (split.test, test)):
        assert {u: pair[0] for u, pair in expected.items()} == as_sets(part.fold_in, part.users, split.items)
        assert {u: pair[1] for u, pair in expected.items()} == as_sets(part.held_out, part.users, split.items)
        assert part.dropped == n_heldout - len(expected)


def test_no_user_and_no_event_is_in_two_places(split):
    train, valid, test = (set(users.tolist()) for users in (split.train.user_ids, split.valid.users, split.test.users))
    assert not train & valid
    assert not train & test
    assert not valid & test
    assert split.test.fold_in.multiply(split.test.held_out).nnz == 0
    assert (np.bincount(split.train.matrix.indices, minlength=len(split.items)) > 0).all()
    assert (np.diff(split.test.held_out.indptr) > 0).all()


def test_the_seed_decides_and_global_random_state_does_not(split):
    data = Interactions.from_matrix(sparse.random(60, 20, 0.5, format="csr", random_state=0))
    np.random.seed(1)
    one = strong_split(data, 10, seed=3)
    state = np.random.get_state()[1].copy()
    two = strong_split(data, 10, seed=3)
    assert (np.random.get_state()[1] == state).all()
    assert (one.test.held_out != two.test.held_out).nnz == 0
    assert strong_split(data, 10, seed=4).test.users.tolist() != one.test.users.tolist()


def test_values_come_along():
    data = Interactions.from_matrix(sparse.csr_matrix(np.full((9, 10), 3.0)))
    split = strong_split(data, 2)
    assert (split.test.fold_in.data == 3).all()
    assert (split.test.held_out.data == 3).all()


@pytest.mark.parametrize("n_heldout", [25, 1000])
def test_too_few_users(n_heldout):
    data = Interactions.from_matrix(sparse.eye(50, format="csr"))
    with pytest.raises(InvalidParameterError, match=r"got 50; ask for 24 held-out users or fewer"):
        strong_split(data, n_heldout)


@pytest.mark.parametrize(
    ("heldout_users", "seed"), [(0, 1), (-1, 1), (2.0, 1), ("3", 1), (True, 1), (1, -1), (1, 2**32)]
)
def test_numbers_have_to_be_whole_and_in_range(heldout_users, seed):
    data = Interactions.from_matrix(sparse.eye(50, format="csr"))
    with pytest.raises(InvalidParameterError, match="to be an integer"):
        strong_split(data, heldout_users, seed)


@pytest.mark.parametrize(
    ("n_events", "test_share", "sentence"),
    [
        (4, 0.2, "at least 5 events on items of the training users, of which 0.2 are held out, got 10 users, of whom "),
        (1, 0.2, "none has more than 1; keep out more users, or take another split, such as per-user or leave-last"),
        (7, 0.1, "at least 10 events on items of the training users, of which 0.1 are held out, got 10 users, of whom"),
        (4, 0.9, "at least 5 events .* none has more than 4"),
        (6, 1 / 7, "at least 7 events .* none has more than 6"),
    ],
)
def test_users_with_too_few_events_are_refused(n_events, test_share, sentence):
    random = np.random.default_rng(0)
    dense = np.zeros((60, 20))
    for row in dense:
        row[random.choice(20, n_events, replace=False)] = 1
    data = Interactions.from_matrix(sparse.csr_matrix(dense))
    with pytest.raises(InvalidDataError, match=f"Expected validation users with .*{sentence}"):
        strong_split(data, 10, test_share=test_share)


def test_the_test_users_are_looked_at_too():
    """Here all validation users have enough events, and no test user has."""
    ids = np.random.RandomState(3).permutation(40)
    dense = np.ones((40, 6))
    dense[ids[-5:], 2:] = 0
    with pytest.raises(
        InvalidDataError, match=r"Expected test users with .* got 5 users, of whom none has more than 2"
    ):
        strong_split(Interactions.from_matrix(sparse.csr_matrix(dense)), 5, seed=3)
    dense[ids[-1]] = 1
    test = strong_split(Interactions.from_matrix(sparse.csr_matrix(dense)), 5, seed=3).test
    assert (len(test.users), test.dropped) == (1, 4)
    assert test.reason == "they have fewer than 5 events on items of the training users"


def test_training_users_without_events_are_refused():
    row = sparse.csr_matrix(([1.0], ([0], [0])), shape=(3, 2))
    seed = next(s for s in range(100) if np.random.RandomState(s).permutation(3)[0] != 0)
    with pytest.raises(InvalidDataError, match="training users with events"):
        strong_split(Interactions.from_matrix(row), 1, seed)


def test_cards_and_commands_know_every_kind_of_split_and_its_options():
    assert tuple(SPLITS) == SPLIT_KINDS
    assert {name for kind in SPLITS for name in split_options(kind)} == {*SPLIT_OPTIONS, "seed"}


def test_other_arguments():
    with pytest.raises(InvalidTypeError, match="Expected Interactions, got csr_matrix"):
        strong_split(sparse.csr_matrix(np.eye(3)), 1)
    with pytest.raises(InvalidParameterError, match=r"test_share between 0 and 1, got 1\.5"):
        strong_split(Interactions.from_matrix(sparse.eye(50, format="csr")), 1, test_share=1.5)
