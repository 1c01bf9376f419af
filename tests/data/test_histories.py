import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recvae
from recvae import EASE, Interactions
from recvae.data.histories import UnknownItems, as_frame, ranking_table, read_histories
from recvae.data.ids import ItemIndex
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError

FRAMES = [pd.DataFrame, pl.DataFrame, pa.table]
NAMES = ["pandas", "polars", "pyarrow"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6), st.integers(0, 9), st.floats(0, 4, width=16).map(lambda v: 1.0 if v < 1e-3 else v)
        ),
        min_size=1,
        max_size=60,
    )
)
def test_rows_are_those_of_interactions(events):
    """Lists and frames, with values and without, numbers and text."""
    users, items, values = (list(column) for column in zip(*events, strict=True))
    frame = pa.table({"user": users, "item": items, "value": values})
    for value in (None, "value"):
        data = Interactions.from_frame(frame, value=value)
        known = np.array([*data.item_ids[::-1].tolist(), 77])
        found = read_histories(frame, known, value=value)
        expected, _ = data.align(known)
        assert found.users.tolist() == expected.user_ids.tolist()
        np.testing.assert_array_equal(found.rows.toarray(), expected.matrix.toarray())
        assert (found.rows.dtype, found.rows.has_canonical_format) == (np.float32, True)
        assert found.unknown == UnknownItems()
        assert (found.rows.data > 0).all()
    lists = {user: [item for u, item in zip(users, items, strict=True) if u == user] for user in sorted(set(users))}
    counted = Interactions.from_frame(frame).align(known)[0].matrix.toarray()
    for histories in (lists, list(lists.values()), {str(u): list(map(str, mine)) for u, mine in lists.items()}):
        found = read_histories(histories, known)
        np.testing.assert_array_equal(found.rows.toarray(), counted)


def test_users_keep_their_order_and_their_row():
    found = read_histories({"zoe": ["x", "a", "a"], "ann": ["never", "y"], "bob": []}, ["a", "b"])
    assert found.users.tolist() == ["zoe", "ann", "bob"]
    assert found.rows.toarray().tolist() == [[2, 0], [0, 0], [0, 0]]
    assert found.unknown == UnknownItems(3, ("never", "x", "y"))
    assert str(found.unknown) == (
        "3 events are on items that the model does not know, such as 'never', 'x', 'y', and were left out."
    )
    assert read_histories([[1], [0]], [0, 1]).users.tolist() == [0, 1]
    assert read_histories([], [0]).rows.shape == (0, 1)


def test_unknown_items_add_up():
    assert UnknownItems(2, (5, 9)) + UnknownItems(1, (1,)) + UnknownItems(4, (9, 7)) == UnknownItems(7, (1, 5, 7))


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
def test_frames_of_events_and_of_lists(frame):
    events = frame({"who": ["b", "a", "b", "b"], "what": [10, 20, 99, 10]})
    lists = frame({"who": ["b", "a", "b", "c"], "what": [[10, 99], [20], [10], []]})
    found = read_histories(events, [20, 10], user="who", item="what")
    assert found.users.tolist() == ["a", "b"]
    assert found.rows.toarray().tolist() == [[1, 0], [0, 2]]
    assert found.unknown == UnknownItems(1, (99,))
    same = read_histories(lists, ItemIndex([20, 10]), user="who", item="what")
    assert same.users.tolist() == ["a", "b", "c"]
    assert same.rows.toarray().tolist() == [[1, 0], [0, 2], [0, 0]]
    assert same.unknown == found.unknown


def test_one_request_does_not_pay_for_the_catalogue():
    ids = [f"item-{number}" for number in range(100_000)]
    index, history = ItemIndex(ids), ids[::2000]
    read_histories([history], index)

    def seconds():
        started = time.perf_counter()
        read_histories([history], index)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(50)) < 5e-4  # 40 us alone on a core; to build the index takes 20 ms


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({"ann": "abc"}, "Expected a list of ids as the history of user 'ann', got str 'abc'"),
        (["abc"], "Expected a list of ids as the history of user 0, got str 'abc'"),
        ({"ann": {"a": 1}}, "the history of user 'ann', got dict"),
        ([[1], 5], "the history of user 1, got int"),
        ([1, 2], "the history of user 0, got int"),
        ([[1.5]], "as items, all of one kind, got float 1.5"),
        ([[[1]]], r"got list \[1\]"),
        ([[1], ["a"]], "all of one kind, got both"),
        ({1.5: [1]}, "as users, all of one kind, got float 1.5"),
        ({None: [1]}, "as users, all of one kind, got NoneType None"),
        ("abc", r"Expected histories as a dict .* got str"),
        (7, "a list of lists or a frame, got int"),
        (
            pl.LazyFrame({"user": [1], "item": [1]}),
            "Expected a pandas or polars frame or a pyarrow table, got LazyFrame",
        ),
    ],
)
def test_what_are_no_histories(histories, message):
    with pytest.raises(InvalidTypeError, match=message):
        read_histories(histories, [1, 2])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1], "thing": [1]}, "Expected one column 'item', but it is missing"),
        ({"user": [1], "item": [None]}, "a value in every row of 'item', got none in row 0"),
        ({"user": [1, 2], "item": [[1], None]}, "a value in every row of 'item', got none in row 1"),
        ({"user": [1, 2], "item": [[1], [2, None]]}, "a value in every row of 'item', got none in row 2"),
        ({"user": [1], "item": [1.5]}, "integers or strings as ids in 'item', got double"),
        ({"user": [1], "item": [[1.5]]}, "integers or strings as ids in 'item', got double"),
        ({"user": [1], "item": [[[1]]]}, "integers or strings as ids in 'item', got list"),
        ({"user": [1.5], "item": [1]}, "integers or strings as ids in 'user', got double"),
    ],
)
def test_what_are_no_events(columns, message):
    with pytest.raises(InvalidDataError, match=message):
        read_histories(pa.table(columns), [1, 2])


def test_values_are_numbers_of_zero_or_more_beside_events():
    for values, message in (([-1.0], "zero or more"), ([float("nan")], "finite"), (["a"], "Expected numbers")):
        with pytest.raises(InvalidDataError, match=message):
            read_histories(pa.table({"user": [1], "item": [1], "v": values}), [1], value="v")
    for histories in ([[1]], {1: [1]}, pa.table({"user": [1], "item": [[1]], "v": [1.0]})):
        with pytest.raises(InvalidParameterError, match="value='v'"):
            read_histories(histories, [1], value="v")


def test_the_way_through_a_model():
    data = recvae.load_dataset("sample").select_users(np.arange(300))
    model = EASE().fit(data)
    names = {"ann": data.item_ids[[3, 5]].tolist(), "bob": [10**9]}
    found = read_histories(names, model.item_ids_)
    ids, scores = model.recommend(np.arange(2), found.rows, N=4)
    table = ranking_table(found.users, ids, scores, model.item_ids_, model.titles_)
    assert table.column_names == ["user", "rank", "item", "score", "title"]
    assert table["user"].to_pylist() == ["ann"] * 4 + ["bob"] * 4
    assert table["rank"].to_pylist() == [1, 2, 3, 4] * 2
    assert table["item"].to_pylist() == model.item_ids_[ids.ravel()].tolist()
    assert table["title"].to_pylist() == model.titles_[ids.ravel()].tolist()
    one = ranking_table(["ann"], ids[0], scores[0], model.item_ids_, model.titles_)
    assert one.equals(table[:4])


def test_padding_has_no_row():
    ids, scores = np.array([[2, 0, -1], [-1, -1, -1], [1, -1, -1]]), np.array([[3.0, 2, -9], [-9] * 3, [1, -9, -9]])
    table = ranking_table([7, 8, 9], ids, scores.astype(np.float32), np.array(["a", "b", "c"], dtype=object))
    assert table.to_pydict() == {"user": [7, 7, 9], "rank": [1, 2, 1], "item": ["c", "a", "b"], "score": [3, 2, 1]}
    empty = ranking_table(["x"], ids[1], scores[1], np.array(["a"], dtype=object))
    assert len(empty) == 0
    assert empty.schema.field("item").type == pa.string()
    with pytest.raises(InvalidDataError, match=r"a row for each of 2 users, got \(3, 3\)"):
        ranking_table([7, 8], ids, scores, np.arange(3))


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
def test_a_table_as_the_frame_that_came(frame):
    table = pa.table({"user": [1, 2], "item": ["a", "b"]})
    made = as_frame(table, frame({"x": [1]}))
    assert type(made) is type(frame({"x": [1]}))
    assert pa.table(made).to_pydict() == table.to_pydict()
    assert as_frame(table, {"ann": [1]}) is table
