"""What counts as an event: weights by behaviour, half-life, k-core; against brute force over single rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import recvae
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError

DAY = 86400.0
WEIGHTS = {"view": 1, "cart": 3, "buy": 5}


@pytest.fixture(scope="module")
def events():
    random = np.random.default_rng(0)
    n = 400
    start = 1.6e9
    return pd.DataFrame(
        {
            "user": random.integers(0, 20, n),
            "item": random.integers(0, 15, n),
            "event": random.choice(["view", "cart", "buy"], n, p=[0.7, 0.2, 0.1]),
            "n": random.integers(1, 4, n),
            "time": start + random.integers(0, 100 * int(DAY), n),
        }
    )


def brute(events, weights=None, half_life=None, value=None, min_value=None):
    """{(user, item): value} by a loop over the rows."""
    cells = {}
    kept = [row for row in events.to_dict("records") if min_value is None or row[value] >= min_value]
    kept = [row for row in kept if weights is None or weights.get(row["event"], 0)]
    last = max(row["time"] for row in kept)
    for row in kept:
        number = (row[value] if value else 1) * (1 if weights is None else weights[row["event"]])
        if half_life is not None:
            number *= 2 ** (-(last - row["time"]) / half_life)
        pair = row["user"], row["item"]
        cells[pair] = cells.get(pair, 0) + number
    return cells


def as_cells(data):
    cells = data.matrix.tocoo()
    pairs = zip(data.user_ids[cells.row].tolist(), data.item_ids[cells.col].tolist(), strict=True)
    return dict(zip(pairs, cells.data.tolist(), strict=True))


RULES = {
    "weights": {"behavior": "event", "weights": WEIGHTS},
    "a weight of 0": {"behavior": "event", "weights": WEIGHTS | {"view": 0}},
    "a value": {"behavior": "event", "weights": WEIGHTS, "value": "n"},
    "a least value": {"behavior": "event", "weights": WEIGHTS, "value": "n", "min_value": 2},
    "half-life": {"half_life": "30 days", "time": "time"},
    "all": {
        "behavior": "event", "weights": WEIGHTS | {"view": 0.5}, "half_life": 20 * DAY,
        "time": "time", "value": "n", "min_value": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("rules", RULES)
def test_values_are_those_of_a_loop_over_the_rows(rules, events):
    options = RULES[rules]
    data = recvae.Interactions.from_frame(events, values="raw", **options)
    half_life = options.get("half_life")
    half_life = 30 * DAY if half_life == "30 days" else half_life
    expected = brute(events, options.get("weights"), half_life, options.get("value"), options.get("min_value"))
    assert as_cells(data) == pytest.approx(expected, rel=1e-6)
    left_out = sum(data.account.left_out.values())
    assert data.account.rows == len(events)
    assert left_out == len(events) - data.n_events


def test_what_was_done_is_said(events):
    data = recvae.Interactions.from_frame(
        events, behavior="event", weights=WEIGHTS | {"view": 0, "gift": 2}, time="time", half_life="2w"
    )
    said = data.describe()
    n_views = int((events.event == "view").sum())
    assert f"{n_views} of the behaviour 'view', which weighs 0" in said
    assert "added to an earlier row of the same user and item" in said
    assert "weighed by event: view 0, cart 3, buy 5, gift 2" in said
    assert "no row has the behaviour 'gift'" in said
    last = events.time[events.event != "view"].max()
    assert f"counted half for each 2w before {pd.Timestamp(last, unit='s').date()}" in said
    assert "read as binary" in said
    assert data.preparation == {
        "behavior": "event", "weights": WEIGHTS | {"view": 0, "gift": 2}, "unknown_behavior": "refuse",
        "half_life": "2w", "reference_time": last,
    }  # fmt: skip


def test_a_number_is_of_seconds_where_times_are_dates(events):
    data = recvae.Interactions.from_frame(events, half_life=5e6, time="time", values="raw")
    assert "counted half for each 5000000.0 seconds before 2020-" in str(data.account)
    numbers = recvae.Interactions.from_frame(
        events.assign(time=events.index + 1), half_life=50, time="time", values="raw"
    )
    assert "counted half for each 50 before 400" in str(numbers.account)


def test_behaviours_without_a_weight(events):
    weights = {"cart": 3, "buy": 5}
    n_views = int((events.event == "view").sum())
    with pytest.raises(InvalidDataError, match=f"'view' in {n_views} rows.*unknown_behavior='drop'"):
        recvae.Interactions.from_frame(events, behavior="event", weights=weights)
    options = {"behavior": "event", "weights": weights, "unknown_behavior": "drop"}
    data = recvae.Interactions.from_frame(events, **options)
    assert data.account.left_out["of the behaviour 'view', which has no weight"] == n_views
    assert as_cells(data) == pytest.approx(brute(events, weights))
    missing = events.assign(event=events.event.where(events.event != "view"))
    assert as_cells(recvae.Interactions.from_frame(missing, **options)) == as_cells(data)


def test_behaviours_may_be_numbers(events):
    numbered = events.assign(event=events.event.map({"view": 1, "cart": 2, "buy": 4}))
    data = recvae.Interactions.from_frame(numbered, behavior="event", weights={1: 1, 2: 3, 4: 5})
    assert as_cells(data) == pytest.approx(brute(events, WEIGHTS))


def test_what_rules_refuse(events):
    def read(**options):
        return recvae.Interactions.from_frame(events, **options)

    with pytest.raises(InvalidParameterError, match="column of behaviours"):
        read(weights=WEIGHTS)
    with pytest.raises(InvalidParameterError, match="weights for the behaviours in 'event'"):
        read(behavior="event")
    with pytest.raises(InvalidTypeError, match="weights as"):
        read(behavior="event", weights=["view"])
    for weight in (-1, np.nan, np.inf, "3", True):
        with pytest.raises(InvalidParameterError, match="weight of 'view'"):
            read(behavior="event", weights={"view": weight})
    with pytest.raises(InvalidParameterError, match="more than 0"):
        read(behavior="event", weights={"view": 0})
    with pytest.raises(UnknownNameError, match="unknown behaviours"):
        read(behavior="event", weights=WEIGHTS, unknown_behavior="ignore")
    with pytest.raises(InvalidParameterError, match="column of times"):
        read(half_life="30 days")
    for half_life in (0, -1, np.inf, "30", "30 parsecs", "6m", "0 days", True):
        with pytest.raises(InvalidParameterError, match="half_life"):
            read(half_life=half_life, time="time")
    with pytest.raises(InvalidParameterError, match="times that are dates"):
        recvae.Interactions.from_frame(events.assign(time=events.time - 1.6e9 + 1), half_life="3d", time="time")
    with pytest.raises(InvalidDataError, match="1 of 400 without"):
        recvae.Interactions.from_frame(
            events.assign(time=events.time.where(events.index > 0)), half_life=9, time="time"
        )


def test_events_too_old_to_be_stored_are_counted(events):
    data = recvae.Interactions.from_frame(events, half_life="1 hour", time="time", values="raw")
    assert data.matrix.data.min() > 0
    age = (events.time.max() - events.time) / 3600
    assert data.account.left_out["of no weight at a half-life of 1 hour"] == int((2.0**-age < 1e-15).sum())


def core(cells, min_user, min_item):
    """The k-core by its definition, one user or item at a time."""
    cells = set(cells)
    while True:
        for position, least in ((0, min_user), (1, min_item)):
            counts = {}
            for cell in cells:
                counts[cell[position]] = counts.get(cell[position], 0) + 1
            few = next((name for name, count in counts.items() if count < least), None)
            if few is not None:
                cells = {cell for cell in cells if cell[position] != few}
                break
        else:
            return cells


@settings(max_examples=60)
@given(
    cells=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=60),
    min_user=st.integers(0, 5),
    min_item=st.integers(0, 5),
)
def test_k_core(cells, min_user, min_item):
    frame = pd.DataFrame(sorted(cells), columns=["user", "item"])
    expected = core(cells, min_user, min_item)
    options = {"min_user": min_user, "min_item": min_item, "k_core": True}
    if not expected:
        with pytest.raises(InvalidDataError, match="core"):
            recvae.Interactions.from_frame(frame, **options)
        return
    data = recvae.Interactions.from_frame(frame, **options)
    assert set(as_cells(data)) == expected
    assert sum(data.account.left_out.values()) == len(cells) - len(expected)
    rows = sparse.csr_matrix((np.ones(len(frame)), (frame.user, frame.item)))
    matrix = recvae.Interactions.from_matrix(rows, min_user=max(1, min_user), min_item=max(1, min_item), k_core=True)
    assert set(as_cells(matrix)) == expected


def test_one_pass_is_not_the_core():
    # an item of three users, two of whom have nothing else
    frame = pd.DataFrame({"user": [0, 1, 2, 2, 3], "item": [0, 0, 0, 1, 1]})
    assert recvae.Interactions.from_frame(frame, min_user=2, min_item=2).n_events == 2
    with pytest.raises(InvalidDataError, match="core"):
        recvae.Interactions.from_frame(frame, min_user=2, min_item=2, k_core=True)
