import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recvae import Interactions
from recvae.data.events import merge_events, merge_sorted
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError

EVENTS = {
    "who": [7, 7, 3, 3, 3, 11],
    "what": ["b", "a", "b", "c", "b", "a"],
    "stars": [5.0, 2.0, 4.0, 0.0, 1.0, 3.0],
}
KINDS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}


def read(events=EVENTS, kind=pd.DataFrame, **options):
    return Interactions.from_frame(kind(events), **{"user": "who", "item": "what", "value": "stars"} | options)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_frames_of_each_library_give_the_same(kind):
    data = read(kind=kind)
    assert data.user_ids.tolist() == [3, 7, 11]
    assert data.item_ids.tolist() == ["a", "b"]  # "c" was given zero stars only: no event
    assert data.matrix.toarray().tolist() == [[0, 5], [2, 5], [3, 0]]  # 3's two of "b" are added up
    assert data.matrix.dtype == np.float32
    assert isinstance(data.matrix, sparse.csr_matrix)


def test_without_a_value_column_each_row_counts_one():
    assert read(value=None).matrix.toarray().tolist() == [[0, 2, 1], [1, 1, 0], [1, 0, 0]]


def test_the_last_of_repeated_events_can_stand():
    assert read(duplicates="last").matrix[0].toarray().tolist() == [[0, 1]]


def test_min_value_looks_at_events_before_they_are_added_up():
    data = read(min_value=3)
    assert data.matrix.toarray().tolist() == [[0, 4], [0, 5], [3, 0]]


def test_min_item_comes_before_min_user():
    frame = {"who": [1, 1, 2, 2, 3], "what": ["a", "b", "a", "c", "a"], "stars": [1.0] * 5}
    data = read(frame, min_item=2, min_user=1)
    assert data.item_ids.tolist() == ["a"]
    assert data.user_ids.tolist() == [1, 2, 3]
    with pytest.raises(InvalidDataError, match="lower min_user or min_item"):
        read(frame, min_item=2, min_user=2)


def test_items_whose_users_all_went_go_too():
    frame = {"who": [1, 1, 2], "what": ["a", "b", "c"], "stars": [1.0] * 3}
    assert read(frame, min_user=2).item_ids.tolist() == ["a", "b"]


def test_a_matrix_keeps_its_empty_rows_and_columns_unless_told_otherwise():
    matrix = sparse.coo_matrix(([1.0, 1.0], ([0, 2], [1, 1])), shape=(3, 3))
    assert Interactions.from_matrix(matrix).matrix.shape == (3, 3)
    filtered = Interactions.from_matrix(matrix, min_user=1, min_item=1, user_ids=["x", "y", "z"])
    assert filtered.user_ids.tolist() == ["x", "z"]
    assert filtered.item_ids.tolist() == [1]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.coo_matrix, sparse.coo_array])
def test_matrices_of_each_kind(kind):
    matrix = kind(np.array([[0, 2], [1, 0]]))
    before = matrix.copy()
    data = Interactions.from_matrix(matrix)
    assert data.matrix.toarray().tolist() == [[0, 2], [1, 0]]
    assert isinstance(data.matrix, sparse.csr_matrix)
    data.matrix.data[:] = 9
    assert (matrix.toarray() == before.toarray()).all()


def test_titles_fall_back_on_the_id():
    assert read(titles={"a": "Alien"}).titles.tolist() == ["Alien", "b"]


def test_64_bit_and_unicode_ids_survive():
    frame = {"who": [-(2**62), 2**62], "what": ["Ünïcödé 東京", "ünïcödé"], "stars": [1.0, 1.0]}
    data = read(frame)
    assert data.user_ids.tolist() == [-(2**62), 2**62]
    assert data.item_ids.tolist() == ["Ünïcödé 東京", "ünïcödé"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=40))
def test_events_equal_a_dictionary_of_sums(events):
    sums: dict = {}
    for user, item, value in events:
        sums[user, item] = sums.get((user, item), 0) + value
    sums = {pair: value for pair, value in sums.items() if value}
    frame = pa.table(dict(zip(["user", "item", "n"], map(list, zip(*events, strict=True)), strict=True)))
    if not sums:
        with pytest.raises(InvalidDataError, match="at least one event"):
            Interactions.from_frame(frame, value="n")
        return
    data = Interactions.from_frame(frame, value="n")
    cells = data.matrix.tocoo()
    users, items = data.user_ids[cells.row].tolist(), data.item_ids[cells.col].tolist()
    assert dict(zip(zip(users, items, strict=True), cells.data.tolist(), strict=True)) == sums
    assert data.user_ids.tolist() == sorted(data.user_ids.tolist())
    assert data.item_ids.tolist() == sorted(data.item_ids.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "nobody"}, r"one column 'nobody', but it is missing; the columns are \['who', 'what', 'stars'\]"),
        ({"value": "what"}, "numbers in column 'what'"),
        ({"item": "stars"}, "integers or strings as ids in 'stars'"),
        ({"min_value": 99}, "at least one event with a value of at least 99"),
        ({"min_user": 99}, "at least 99 events"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(options, message):
    with pytest.raises(InvalidDataError, match=message):
        read(**options)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("stars", float("inf"), "finite values, got inf"),
        ("stars", -1.0, "zero or more, got -1"),
        ("stars", 1e39, r"from 1e-15 to 1e\+15, got 1e\+39"),
        ("stars", None, "every row of 'stars', got none in row 2"),
        ("who", None, "every row of 'who', got none in row 2"),
    ],
)
def test_bad_cells_are_refused(column, value, message):
    with pytest.raises(InvalidDataError, match=message):
        read(EVENTS | {column: [*EVENTS[column][:2], value, *EVENTS[column][3:]]}, pa.table)


def test_min_value_needs_values_and_a_number():
    for options in ({"value": None, "min_value": 4}, {"min_value": float("nan")}, {"min_value": "4"}):
        with pytest.raises(InvalidParameterError, match="min_value"):
            read(**options)


def test_categories_are_ids_like_any_other():
    expected = read().item_ids.tolist()
    assert read({**EVENTS, "what": pd.Categorical(EVENTS["what"])}).item_ids.tolist() == expected
    frame = pl.DataFrame(EVENTS).with_columns(pl.col("what").cast(pl.Categorical))
    assert Interactions.from_frame(frame, user="who", item="what", value="stars").item_ids.tolist() == expected


def test_columns_stay_sorted_whatever_is_selected():
    data = read().select_items(np.array([1, 0]))
    assert data.matrix.has_sorted_indices
    assert data.item_ids.tolist() == ["b", "a"]
    assert data.matrix.toarray().tolist() == [[5, 0], [5, 2], [0, 3]]


def test_nan_is_refused_by_each_way_in():
    broken = EVENTS | {"stars": [float("nan"), *EVENTS["stars"][1:]]}
    with pytest.raises(InvalidDataError, match="row 0"):
        read(broken, pd.DataFrame)
    for kind in (pl.DataFrame, pa.table):
        with pytest.raises(InvalidDataError, match="finite values, got nan"):
            read(broken, kind, min_value=3)
    with pytest.raises(InvalidDataError, match="finite values, got nan"):
        Interactions.from_matrix(sparse.csr_matrix([[1.0, np.nan]]))


@pytest.mark.parametrize("thing", [np.eye(3), [[1, 0], [0, 1]], "events"])
def test_dense_things_are_refused(thing):
    with pytest.raises(InvalidTypeError, match="sparse matrix, got"):
        Interactions.from_matrix(thing)
    with pytest.raises(InvalidTypeError, match="pandas or polars frame or a pyarrow table, got"):
        Interactions.from_frame(thing)


def test_double_columns_and_mixed_ids_are_refused():
    with pytest.raises(InvalidDataError, match="'who', but it stands 2 times"):
        Interactions.from_frame(pd.DataFrame([[1, 2, 3]], columns=["who", "who", "what"]), user="who", item="what")
    with pytest.raises(InvalidTypeError, match="got LazyFrame"):
        Interactions.from_frame(pl.LazyFrame({"user": [1], "item": [2]}))
    with pytest.raises(InvalidDataError, match="'who' cannot be read"):
        read(EVENTS | {"who": [1, "x", 2, 3, 4, 5]})


def test_ids_have_to_fit():
    matrix = sparse.eye(3, format="csr")
    with pytest.raises(InvalidDataError, match="Expected 3 user_ids"):
        Interactions.from_matrix(matrix, user_ids=[1, 2])
    with pytest.raises(InvalidDataError, match="without repetition"):
        Interactions.from_matrix(matrix, item_ids=["a", "a", "b"])
    with pytest.raises(InvalidDataError, match="all integers or all strings"):
        Interactions.from_matrix(matrix, item_ids=["a", None, "b"])


def test_unknown_options_name_the_known():
    with pytest.raises(UnknownNameError, match="did you mean log1p"):
        read(values="log")
    with pytest.raises(UnknownNameError, match="last, sum"):
        read(duplicates="maximal")


def test_a_damaged_csr_is_refused():
    matrix = sparse.csr_matrix(np.eye(3))
    matrix.indices[0] = 7
    with pytest.raises(InvalidDataError, match="damaged"):
        Interactions.from_matrix(matrix)


def test_what_it_shows():
    assert repr(read()) == "Interactions(3 users x 2 items, 4 events, values='binary')"


def test_what_became_of_the_rows_is_counted_and_said(tmp_path):
    rows = "".join(f"{user},{item},{0 if (user + item) % 3 else 8}\n" for user in range(30) for item in range(20))
    (tmp_path / "z.csv").write_text("user,item,rating\n" + rows)
    text = Interactions.read(tmp_path / "z.csv", value="rating").describe()
    assert "600 rows read, 200 events; left out: 400 of value 0" in text
    reasons = "1 of value 0, 1 added to an earlier row of the same user and item"
    assert str(read().account) == f"6 rows read, 4 events; left out: {reasons}"
    assert read(duplicates="last").account.left_out == {"of value 0": 1, "followed by a later row": 1}
    assert read(min_value=2).account.left_out == {"below 2": 2}
    assert read(value=None, duplicates="last").account.left_out == {"followed by a later row": 1}
    assert str(read(pa.table({"who": [1], "what": [2]}), lambda t: t, value=None).account) == "1 rows read, 1 events"


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=60),
    st.sampled_from([None, 0, 2]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["sum", "last"]),
)
def test_each_row_is_an_event_or_accounted_for(events, min_value, min_user, min_item, duplicates):
    frame = pa.table(dict(zip(["user", "item", "n"], map(list, zip(*events, strict=True)), strict=True)))
    options = {"min_value": min_value, "min_user": min_user, "min_item": min_item, "duplicates": duplicates}
    try:
        data = Interactions.from_frame(frame, value="n", **options)
    except InvalidDataError:
        return
    assert data.account.rows == len(events) == data.n_events + sum(data.account.left_out.values())
    weak = sum(value < (min_value or 0) for _, _, value in events)
    assert data.account.left_out.get(f"below {min_value}", 0) == weak
    assert all(n > 0 for n in data.account.left_out.values())


def test_filters_are_accounted_for_and_splits_keep_the_account():
    frame = {"who": [1, 1, 2, 2, 3], "what": ["a", "b", "a", "b", "c"], "stars": [1.0] * 5}
    data = read(frame, min_item=2, min_user=2)
    assert data.account.left_out == {"on items with fewer than 2 events": 1}
    assert read(frame, min_user=2).account.left_out == {"of users with fewer than 2 events": 1}
    assert data.select_users(np.array([0])).account == data.account
    assert Interactions.from_matrix(data.matrix).account is None


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "NaN", "<NA>", "\\N", "", " "])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_words_for_nothing_are_no_ids(word, kind):
    for column in ("who", "what"):
        with pytest.raises(
            InvalidDataError, match=rf"in every row of '{column}', got .* in row 1 \(from 0\); drop such"
        ):
            read(EVENTS | {column: ["a", word, "b", word, "c", "a"]}, kind)


@pytest.mark.parametrize("column", [[7.0, 7.0, None, 3.0, 3.0, 11.0], [None] * 6, ["a", "b", None, "c", "d", "e"]])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_gaps_among_ids_are_refused_with_a_way_out(column, kind):
    with pytest.raises(InvalidDataError, match=r"in every row of 'who', got none in row \d \(from 0\); drop such rows"):
        read(EVENTS | {"who": column}, kind)


@pytest.mark.parametrize("first", [7.0, 7.5, 1e20, float("nan")])
def test_floats_are_no_ids(first):
    column = [first, 7.0, 3.0, 3.0, 3.0, 11.0]
    for kind in (pl.DataFrame, pa.table):
        with pytest.raises(InvalidDataError, match=r"ids in 'who', got double; drop the rows .* into integers"):
            read(EVENTS | {"who": column}, kind)


def test_titles_by_number_or_text():
    frame = {"who": [1, 1], "what": [7, 8], "stars": [1.0, 1.0]}
    for titles in ({7: "Up"}, {"7": "Up"}, {7.0: "Up"}, {np.int64(7): "Up"}, {"7": "Up", 9: "Big"}):
        data = read(frame, titles=titles)
        assert data.titles.tolist() == ["Up", "8"]
        assert "1 of 2 items have no title" in data.describe()
    assert read(frame | {"what": ["07", "7"]}, titles={7: "Up"}).titles.tolist() == ["07", "Up"]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (sparse.csr_matrix(([1.0, 1.0], [1, 0], [0, 2]), shape=(1, 2)), "sorted indices"),
        (sparse.csr_matrix(([1.0, 1.0], [1, 1], [0, 2]), shape=(1, 2)), "none twice"),
        (sparse.csr_matrix(np.ones((2, 2))), r"shape \(1, 2\), got csr of shape \(2, 2\)"),
        (sparse.csc_matrix(np.ones((1, 2))), "got csc"),
        (np.ones((1, 2)), "got ndarray"),
    ],
)
def test_made_by_hand_they_are_checked(matrix, message):
    with pytest.raises(InvalidDataError, match=rf"{message}.*from_matrix"):
        Interactions(matrix, np.arange(1), np.arange(2))
    damaged = sparse.csr_matrix(np.ones((1, 2)))
    for more in ([0], [0, 1]), ([], [1.0]), ([0], [1.0]):
        damaged.indices, damaged.data = np.append([0, 1], more[0]).astype(np.int32), np.append([1.0, 1], more[1])
        with pytest.raises(InvalidDataError, match="without entries behind its last row, got some"):
            Interactions(damaged, np.arange(1), np.arange(2))
    damaged = sparse.csr_matrix(np.ones((1, 2)))
    damaged.indices[1] = 2**30
    with pytest.raises(InvalidDataError, match="damaged"):
        Interactions(damaged, np.arange(1), np.arange(2))


def test_repeated_pairs_are_merged_by_one_rule():
    random = np.random.default_rng(0)
    users, items = random.integers(0, 20, 500), random.integers(0, 7, 500)
    values = random.integers(1, 6, 500) / 4
    cells, _ = merge_events(sparse.coo_matrix((values, (users, items)), shape=(20, 7)), None, "sum")
    keys = users * 7 + items
    order = keys.argsort(kind="stable")
    first, sums = merge_sorted(keys[order], values[order])
    assert np.array_equal(np.divmod(keys[order][first], 7), (cells.tocoo().row, cells.indices))
    assert np.array_equal(sums, cells.data)
    first, counts = merge_sorted(keys[order], None)
    assert counts.sum() == 500
    assert [len(part) for part in merge_sorted(keys[:0], None)] == [0, 0]
