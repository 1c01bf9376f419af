"""Splits whose test users are training users: what is hidden, from whom, and that nothing is seen twice."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recvae import Interactions, given_split, leave_last_split, per_user_split, temporal_split
from recvae.data.splits import known_users, make_split, split_options
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError
from recvae.evaluation.evaluate import evaluate
from recvae.models.baselines import Popularity


def cells(matrix, users, items):
    return set(zip(users[matrix.nonzero()[0]].tolist(), items[matrix.nonzero()[1]].tolist(), strict=True))


def check(split, data, test=None):
    """What every such split promises."""
    whole = cells(data.matrix, data.user_ids, data.item_ids)
    whole |= set() if test is None else cells(test.matrix, test.user_ids, test.item_ids)
    train, seen = (cells(part.matrix, part.user_ids, split.items) for part in (split.train, split.refit))
    valid, held = (cells(part.held_out, part.users, split.items) for part in (split.valid, split.test))
    assert not train & valid
    assert train | valid <= seen
    assert not held & seen
    assert seen | held <= whole
    assert split.train.item_ids.tolist() == split.refit.item_ids.tolist() == split.items.tolist()
    assert split.train.user_ids.tolist() == split.refit.user_ids.tolist()
    assert (np.bincount(split.refit.matrix.indices, minlength=len(split.items)) > 0).all()
    for holdout, rows in ((split.valid, split.train), (split.test, split.refit)):
        assert rows.user_ids[holdout.train_rows].tolist() == holdout.users.tolist()
        assert (rows.matrix[holdout.train_rows] != holdout.fold_in).nnz == 0
        assert (np.diff(holdout.fold_in.indptr) > 0).all()
        assert (np.diff(holdout.held_out.indptr) > 0).all()
        assert holdout.item_counts.tolist() == np.bincount(rows.matrix.indices, minlength=rows.n_items).tolist()
    return train, valid, held


def by_time(n_users=30, n_items=20, seed=0, density=0.4):
    random = np.random.default_rng(seed)
    user, item = np.nonzero(random.random((n_users, n_items)) < density)
    frame = pd.DataFrame({"user": user, "item": item, "time": random.permutation(len(user)) + 1})
    return frame, Interactions.from_frame(frame, time="time")


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.1, 0.6), st.floats(0.2, 0.6))
def test_per_user_hides_a_share_of_each_user(seed, test_share, valid_share):
    _, data = by_time(seed=seed)
    split = per_user_split(data, test_share, valid_share, seed)
    _, _, held = check(split, data)
    kept = set(split.items.tolist())
    for row, user in enumerate(data.user_ids.tolist()):
        n = int(np.diff(data.matrix.indptr)[row])
        hidden = {item for u, item in held if u == user}
        left = {item for u, item in cells(split.refit.matrix, split.refit.user_ids, split.items) if u == user}
        assert len(left) == n - int(test_share * n)
        if len(kept) == data.n_items:
            assert len(hidden) == int(test_share * n)
    assert split.test.dropped == data.n_users - len(split.test.users)


def test_the_seed_decides_what_is_hidden():
    _, data = by_time()
    one, two, other = (per_user_split(data, seed=seed) for seed in (1, 1, 2))
    assert (one.test.held_out != two.test.held_out).nnz == 0
    assert (one.valid.held_out != two.valid.held_out).nnz == 0
    assert cells(one.test.held_out, one.test.users, one.items) != cells(
        other.test.held_out, other.test.users, other.items
    )


@pytest.mark.parametrize(("with_test", "left"), [(True, 5), (False, 4)])
def test_users_with_few_events_have_their_share_of_validation(with_test, left):
    """Rounded down, none of the users, who have 1 or 5 events, would have a validation event."""
    random, n = np.random.default_rng(0), 10_000
    events = random.permuted(np.tile(np.arange(12) < 5, (2 * n, 1)), axis=1)
    events[n:] &= np.cumsum(events[n:], axis=1) == 1
    data = Interactions.from_matrix(sparse.csr_matrix(events.astype(np.float32)))
    if with_test:
        first_missing = ~events & (np.cumsum(~events, axis=1) == 1)
        split = given_split(data, Interactions.from_matrix(sparse.csr_matrix(first_missing.astype(np.float32))))
    else:
        split = per_user_split(data, test_share=0.2)
    assert split.refit.n_events == n * left + n
    hidden = np.diff(split.valid.held_out.indptr)
    assert split.train.n_events == split.refit.n_events - hidden.sum()
    assert hidden.sum() == pytest.approx(0.1 * left * n, abs=4 * np.sqrt(0.25 * n))
    assert hidden.max() == 1
    assert (np.diff(split.valid.fold_in.indptr) == left - 1).all()  # a user's only event stays
    assert split.train.n_users == 2 * n


@pytest.mark.parametrize("last", [1, 2])
def test_leave_last_hides_the_latest_events(last):
    frame, data = by_time(density=0.3)
    split = leave_last_split(data, last)
    train, valid, held = check(split, data)
    kept = set(split.items.tolist())
    n_enough = 0
    for user, events in frame.sort_values("time").groupby("user"):
        items = [(user, item) for item in events["item"]]
        enough = len(items) > 2 * last
        n_enough += enough
        expected = (items[: -2 * last], items[-2 * last : -last], items[-last:]) if enough else (items, [], [])
        for found, wanted in zip((train, valid, held), expected, strict=True):
            assert {cell for cell in found if cell[0] == user} == {cell for cell in wanted if cell[1] in kept}
    assert 0 < len(split.test.users) <= n_enough


def test_temporal_cuts_all_users_at_one_time():
    frame, data = by_time()
    split = temporal_split(data, 0.2, 0.25)
    train, valid, held = check(split, data)
    time = {(user, item): when for user, item, when in frame.itertuples(index=False)}
    cut = sorted(time.values())[int(0.8 * len(frame)) :][0]
    seen = [when for when in time.values() if when < cut]
    valid_cut = sorted(seen)[int(0.75 * len(seen)) :][0]
    assert max(time[cell] for cell in train) < min(time[cell] for cell in valid) <= valid_cut + 2
    assert max(time[cell] for cell in valid) < min(time[cell] for cell in held) <= cut + 2
    assert len(held) == pytest.approx(0.2 * len(frame), abs=2)


def test_temporal_with_dates_and_newcomers():
    days = pd.to_datetime(["2018-01-01", "2018-01-02", "2018-01-03", "2018-02-01", "2018-02-02", "2018-01-02"])
    frame = pd.DataFrame({"user": [*"aaaabb"], "item": [1, 2, 3, 1, 1, 2], "time": days})
    frame.loc[3, "item"] = 4
    frame = pd.concat(
        [
            frame,
            pd.DataFrame(
                {"user": [*"bcc"], "item": [3, 1, 9], "time": pd.to_datetime(["2018-01-04"] + 2 * ["2018-03-01"])}
            ),
        ]
    )
    data = Interactions.from_frame(frame, time="time")
    split = temporal_split(data, test_start="2018-02-01", valid_start="2018-01-03")
    train, valid, held = check(split, data)
    assert train == {("a", 1), ("a", 2), ("b", 2)}
    assert valid == {("a", 3), ("b", 3)}
    assert held == {("b", 1)}  # item 4 and user c came with the test
    assert split.test.dropped == 2
    same = temporal_split(data, test_start=pd.Timestamp("2018-02-01").timestamp(), valid_start="2018-01-03T00:00:00Z")
    assert cells(same.test.held_out, same.test.users, same.items) == held


def test_shares_of_any_kind_of_number():
    _, data = by_time()
    expected = per_user_split(data, 0.25, 0.25)
    for share in (np.float32(0.25), Fraction(1, 4)):
        found = per_user_split(data, share, share)
        assert (found.test.held_out != expected.test.held_out).nnz == 0
        assert (found.valid.held_out != expected.valid.held_out).nnz == 0


def test_what_is_repeated_after_the_cut_is_nothing_new():
    frame = pd.DataFrame(
        {"user": [1, 1, 1, 1, 2, 2, 2], "item": [1, 2, 1, 3, 2, 3, 1], "time": [1, 2, 99, 99, 3, 2, 99]}
    )
    split = temporal_split(Interactions.from_frame(frame, time="time"), test_start=50, valid_start=2.5)
    assert cells(split.test.held_out, split.test.users, split.items) == {(1, 3), (2, 1)}
    assert cells(split.train.matrix, split.train.user_ids, split.items) == {(1, 1), (1, 2), (2, 3)}


def test_a_cut_by_share_is_as_near_as_equal_times_allow():
    for n, expected in ((11, 1), (21, 2), (101, 10)):
        frame = pd.DataFrame({"user": np.arange(n) % 2, "item": np.arange(n) // 2 % 5, "time": 1 + np.arange(n)})
        assert known_users._start("test", None, None, frame["time"].to_numpy(float)) == n - expected + 1
    times = np.array([1.0] * 100 + [2.0] * 137 + [3.0] * 6)
    assert known_users._start("test", None, 0.1, times) == 3
    with pytest.raises(InvalidDataError, match=r"events of different times, got 9 of one: 2018-01-01T00:00:00\+00:00"):
        known_users._start("test", None, None, np.full(9, 1514764800.0))


def test_given_takes_the_test_as_it_is():
    train = Interactions.from_frame(pd.DataFrame({"user": [*"aaaabbbb"], "item": [1, 2, 3, 4, 1, 2, 3, 5]}))
    test = Interactions.from_frame(pd.DataFrame({"user": [*"bbacc"], "item": ["4", "9", "5", "1", "2"]}))
    split = given_split(train, test, valid_share=0.25)
    _, valid, held = check(split, train, Interactions.from_frame(pd.DataFrame({"user": [*"bba"], "item": [4, 9, 5]})))
    assert held == {("b", 4), ("a", 5)}  # ids of text and of numbers are the same; 9 and c are not known
    assert len(valid) == 2
    assert split.test.dropped == 1
    assert split.refit.n_events == 8
    twice = Interactions.from_frame(pd.DataFrame({"user": ["a"], "item": [1]}))
    with pytest.raises(InvalidDataError, match="not in training, got 1 that are; drop these"):
        given_split(train, twice, 0.25)
    for others in ({"user": ["x"], "item": [1]}, {"user": ["a"], "item": [77]}):
        with pytest.raises(InvalidParameterError, match="something held out for test, got none"):
            given_split(train, Interactions.from_frame(pd.DataFrame(others)), 0.25)


def test_someone_is_evaluated_by_the_row_in_training():
    _, data = by_time()
    split = per_user_split(data)
    asked = []

    class Asks:
        def recommend(self, userid, user_items, N=10):
            asked.extend(userid.tolist())
            return Popularity().fit(split.refit, show_progress=False).recommend(userid, user_items, N)

    evaluate(Asks(), split.test, ["recall@5"])
    assert asked == split.test.train_rows.tolist()


def test_times_that_are_not_known_are_said():
    frame, _ = by_time()
    with pytest.raises(InvalidDataError, match="events with times for a split by time, got data without"):
        temporal_split(Interactions.from_frame(frame))
    frame.loc[3:5, "time"] = 0
    with pytest.raises(InvalidDataError, match=r"a time for each event, got 3 of \d+ without"):
        leave_last_split(Interactions.from_frame(frame, time="time"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: per_user_split(data, test_share=0), "test_share between 0 and 1, got 0"),
        (lambda data: per_user_split(data, valid_share=1.5), r"valid_share between 0 and 1, got 1\.5"),
        (lambda data: per_user_split(data, test_share=0.001), "held out for test, got none"),
        (lambda data: per_user_split(data, valid_share=1e-9), "held out for validation, got none"),
        (lambda data: leave_last_split(data, 0), "last to be an integer of at least 1, got 0"),
        (lambda data: leave_last_split(data, 500), "got none"),
        (lambda data: per_user_split(data, test_share="a lot"), "test_share between 0 and 1, got 'a lot'"),
        (lambda data: temporal_split(data, 0.1, test_start=5), "test_start or test_share, got both: 5 and 0.1"),
        (lambda data: temporal_split(data, test_start="soon"), "a date such as 2018-01-31, or a number, got 'soon'"),
        (lambda data: temporal_split(data, test_start=-5), "Expected events before the test, got none from before -5"),
        (lambda data: temporal_split(data, test_start=1e9), "something held out for test, got none"),
        (lambda data: temporal_split(data, valid_start=-5), "Expected events to train on, got none"),
        (lambda data: make_split(data, "random"), "no split called 'random'"),
        (lambda data: make_split(data, "strong"), "Expected heldout_users for the strong split"),
        (lambda data: make_split(data, "strong", last=2), "Expected heldout_users, seed, test_share .*, got last"),
        (lambda data: make_split(data, "given"), "test interactions .* for the given split, got none"),
        (lambda data: make_split(data, "per-user", data), "no test interactions .* for the per-user split"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises((InvalidParameterError, UnknownNameError), match=message):
        call(by_time()[1])


def test_other_arguments():
    with pytest.raises(InvalidTypeError, match="Expected Interactions, got csr_matrix"):
        per_user_split(sparse.csr_matrix(np.eye(3)))
    assert split_options("leave-last") == ["last"]
    _, data = by_time()
    for kind, options in (("strong", {"heldout_users": 3}), ("per-user", {}), ("leave-last", {"last": 2})):
        assert make_split(data, kind, **options).train.n_events < data.n_events


def hourly(first, step):
    """40 users with 8 events each, an hour apart."""
    rows = [(user, item, first + step * (user * 7 + item)) for user in range(40) for item in range(8)]
    return pd.DataFrame(rows, columns=["user", "item", "time"])


def test_a_split_at_a_date_of_times_in_milliseconds():
    milliseconds = Interactions.from_frame(hourly(1624492800000, 3600000), time="time")
    seconds = Interactions.from_frame(hourly(1624492800, 3600), time="time")
    expected = temporal_split(seconds, test_start="2021-07-01").test.held_out
    assert expected.nnz
    for start in ("2021-07-01", 1625097600, 1625097600000):  # as they came, too
        found = temporal_split(milliseconds, test_start=start).test.held_out
        assert (found != expected).nnz == 0
    # a matrix of one's own times, which no one looked at
    own = replace(seconds, times=seconds.times * 1000)
    with pytest.raises(InvalidDataError, match="perhaps milliseconds"):
        temporal_split(own, test_start="2021-07-01")
    assert temporal_split(own, test_start=1625097600000).test.held_out.nnz == expected.nnz
