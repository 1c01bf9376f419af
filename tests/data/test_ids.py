import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recvae.data.ids import ItemIndex, id_array
from recvae.errors import InvalidDataError, InvalidTypeError


@pytest.mark.parametrize(
    ("known", "ids", "positions"),
    [
        ([7, 3, 2**62], [3, 7, 5, 7], [1, 0, -1, 0]),
        (["b", "a"], ["a", "c", "b"], [1, -1, 0]),
        ([7, 3], ["3", "07", "7"], [1, -1, 0]),  # text on numbers: as they are written
        (["7", "x"], [7, 8], [0, -1]),
        (np.array([2**63, 1], dtype=np.uint64), [2**63], [0]),
        (["a"], [], []),
    ],
)
def test_positions(known, ids, positions):
    found = ItemIndex(known).positions(ids)
    assert found.dtype == np.int64
    assert found.tolist() == positions


@pytest.mark.parametrize(
    "column",
    [
        tuple,
        np.array,
        pd.Series,
        pl.Series,
        pa.array,
        lambda ids: pa.chunked_array([ids]),
        set,
        lambda ids: np.array(ids, object),
    ],
)
@pytest.mark.parametrize(("known", "ids"), [([5, 4, 9], [9, 5]), (["e", "d", "i"], ["i", "e"])])
def test_ids_come_as_any_column(column, known, ids):
    assert sorted(ItemIndex(known).positions(column(ids)).tolist()) == [0, 2]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("abc", "Expected a list of ids as items, got str 'abc'"),
        ({"a": 1}, "Expected a list of ids as items, got dict"),
        (5, "Expected a list of ids as items, got int"),
        ([1, 2.5], "Expected integers or strings as items, all of one kind, got float 2.5"),
        (np.array([1.0]), "got float 1.0"),
        ([True], "got bool True"),
        ([None], "got NoneType None"),
        ([1, [2]], r"got list \[2\]"),
        (np.array([[1, 2]]), r"got list \[1, 2\]"),
        ([b"a"], "got bytes b'a'"),
        ([1, "a"], "all of one kind, got both"),
        ([float("nan")], "got float nan"),
    ],
)
def test_what_are_no_ids(ids, message):
    with pytest.raises(InvalidTypeError, match=message):
        ItemIndex([1, 2]).positions(ids)


def test_known_ids_stand_once():
    with pytest.raises(InvalidDataError, match="Expected ids without repetition, got 2 distinct of 3"):
        ItemIndex(["a", "b", "a"])
    with pytest.raises(InvalidTypeError, match="as known ids, got NoneType"):
        ItemIndex(None)


def test_arrays_of_ids():
    assert id_array(["a", "b"], "users").dtype == object
    assert id_array([1, 2], "users").dtype == np.int64
    assert id_array([2**63], "users").tolist() == [2**63]
    assert id_array([], "users").tolist() == []
    for ids in ([2**64], [-1, 2**63]):
        with pytest.raises(InvalidDataError, match="numbers of 64 bits as users"):
            id_array(ids, "users")
