"""When events were: from any column of dates or numbers, kept next to the matrix through every operation."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recvae import Interactions, strong_split
from recvae.errors import InvalidDataError

DAYS = [datetime.datetime(2018, 1, 1), datetime.datetime(2018, 1, 1, 0, 0, 1, 500_000), None]
SECONDS = [1514764800.0, 1514764801.5, 0.0]
EVENTS = {"user": ["a", "a", "b"], "item": [1, 2, 1]}


def times(data):
    return data.times.toarray()[data.matrix.toarray() > 0].tolist()


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(EVENTS | {"time": pd.to_datetime(DAYS)}),
        pd.DataFrame(EVENTS | {"time": pd.to_datetime(DAYS).tz_localize("UTC")}),
        pl.DataFrame(EVENTS | {"time": DAYS}),
        pa.table(EVENTS | {"time": pa.array(DAYS, pa.timestamp("ns"))}),
        pd.DataFrame(EVENTS | {"time": SECONDS}),
        pa.table(EVENTS | {"time": [*SECONDS[:2], None]}),
        pd.DataFrame(EVENTS | {"time": [*SECONDS[:2], np.nan]}),
    ],
    ids=["pandas", "zone", "polars", "arrow", "numbers", "nothing", "nan"],
)
def test_dates_and_numbers_are_seconds_and_nothing_is_zero(frame):
    assert times(Interactions.from_frame(frame, time="time")) == SECONDS


def test_days_and_times_of_files(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time\na,1,2018-01-01\na,2,2018-01-01\nb,1,\n")
    assert times(Interactions.read(tmp_path / "a.csv", time="time")) == [1514764800, 1514764800, 0]
    (tmp_path / "a.csv").write_text("user,item,when\na,1,2018-01-01 00:00:00\na,2,2018-01-01T00:00:01.5\nb,1,\n")
    data = Interactions.read(tmp_path / "a.csv", time="when")
    assert times(data) == SECONDS
    for ending in ("csv", "parquet"):
        data.write(tmp_path / f"b.{ending}")
        again = Interactions.read(tmp_path / f"b.{ending}", value="value", time="time")
        assert times(again) == SECONDS
        assert (again.matrix != data.matrix).nnz == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 99)), min_size=1))
def test_a_repeated_event_has_the_time_of_the_first(events):
    assume(any(value for _, _, value, _ in events))
    frame = pd.DataFrame(events, columns=["user", "item", "value", "time"])
    data = Interactions.from_frame(frame, value="value", time="time")
    first: dict = {}
    for user, item, value, time in events:
        total, when = first.get((user, item), (0, 0))
        first[user, item] = (total + value, min(when, time) if when and time else when or time)
    expected = {cell: both for cell, both in first.items() if both[0]}
    found = data.matrix.tocoo()
    assert data.times.has_sorted_indices
    assert (data.times.indices == data.matrix.indices).all()
    cells = zip(data.user_ids[found.row].tolist(), data.item_ids[found.col].tolist(), strict=True)
    assert dict(zip(cells, zip(found.data, data.times.data, strict=True), strict=True)) == expected


def test_the_last_of_repeated_events_is_the_latest():
    frame = pd.DataFrame({"user": [1, 1, 1], "item": [1, 1, 1], "value": [5, 4, 3], "time": [10, 30, 20]})
    data = Interactions.from_frame(frame, value="value", time="time", duplicates="last")
    assert (data.matrix.data.tolist(), data.times.data.tolist()) == ([4], [10])
    assert Interactions.from_frame(frame, value="value", duplicates="last").matrix.data.tolist() == [3]
    unknown = pd.DataFrame({"user": [1, 1], "item": [1, 1], "value": [5, 4], "time": [-1000, 0]})
    data = Interactions.from_frame(unknown, value="value", time="time", duplicates="last")
    assert (data.matrix.data.tolist(), data.times.data.tolist()) == ([5], [-1000])
    strong = Interactions.from_frame(frame, value="value", time="time", duplicates="last", min_value=5)
    assert (strong.matrix.data.tolist(), strong.times.data.tolist()) == ([5], [10])


def test_times_come_along():
    random = np.random.default_rng(0)
    user, item = np.nonzero(random.random((40, 12)) < 0.5)
    frame = pd.DataFrame({"user": user, "item": item, "value": 1 + user % 3, "time": 1 + 100 * user + item})
    data = Interactions.from_frame(frame, value="value", time="time", min_value=2, min_user=3)
    chosen = random.random(data.n_events) < 0.5
    kinds = [
        data,
        data.select_users(np.array([5, 2, 9])),
        data.select_items(np.array([7, 1, 0])),
        data.select_events(chosen),
        strong_split(data, 5).train,
    ]
    for part in kinds:
        cells = part.matrix.tocoo()
        assert part.times.data.tolist() == (1 + 100 * part.user_ids[cells.row] + part.item_ids[cells.col]).tolist()
    assert data.select_events(chosen).n_events == chosen.sum()


def test_what_is_no_time():
    for column, message in (
        (["soon", "now", ""], "Expected dates or numbers in column 'time', got large_string; turn it into dates first"),
        ([True, False, True], "Expected dates or numbers in column 'time', got bool"),
        ([1.0, np.inf, 2.0], "finite times in column 'time', got inf"),
        ([datetime.time(1), datetime.time(2), None], "Expected dates or numbers in column 'time', got time"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            Interactions.from_frame(pd.DataFrame(EVENTS | {"time": column}), time="time")
    with pytest.raises(InvalidDataError, match="one column 'when', but it is missing"):
        Interactions.from_frame(pd.DataFrame(EVENTS), time="when")


def test_they_are_described():
    frame = pd.DataFrame(EVENTS | {"time": SECONDS})
    text = Interactions.from_frame(frame, time="time").describe()
    assert "times from 2018-01-01 to 2018-01-01; 1 events have no time" in text
    assert "times from 1 to 3" in Interactions.from_frame(frame.assign(time=[1, 2, 3]), time="time").describe()
    assert "times: none is known" in Interactions.from_frame(frame.assign(time=0), time="time").describe()
    assert "times" not in Interactions.from_frame(frame).describe()


@pytest.mark.parametrize(("unit", "size"), [("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)])
@pytest.mark.parametrize("gap", [0, None])
def test_dates_in_smaller_units_become_seconds(unit, size, gap):
    column = [1514764800 * size, 1514764801 * size + size // 2, gap]
    for kind in (pd.DataFrame, pl.DataFrame, pa.table):
        data = Interactions.from_frame(kind(EVENTS | {"time": column}), time="time")
        assert times(data) == SECONDS
        assert f"times came in {unit}, and are seconds" in data.describe()
        assert "times from 2018-01-01 to 2018-01-01" in data.describe()


def test_numbers_that_are_no_dates_stay():
    for column in ([1, 2, 3], [20180101, 20180102, 20180103], [1, 1514764800000, 2], [-5, 1514764800, 3]):
        assert times(Interactions.from_frame(pd.DataFrame(EVENTS | {"time": column}), time="time")) == column
    message = r"times of one unit in column 'time', got 1514764800 \(seconds\) and 1514764800000 \(milliseconds\)"
    with pytest.raises(InvalidDataError, match=message):
        Interactions.from_frame(pd.DataFrame(EVENTS | {"time": [1514764800, 1514764800000, 0]}), time="time")


@pytest.mark.parametrize(
    "column",
    [
        pd.to_datetime(DAYS).astype("datetime64[ns]"),
        pd.to_datetime(DAYS).astype("datetime64[ms]"),
        pd.to_datetime(DAYS).tz_localize("UTC").tz_convert("Asia/Tokyo"),
        ["2018-01-01", "2018-01-01T00:00:01.5", None],
        ["2018-01-01 00:00:00", "2018-01-01 00:00:01.500", ""],
        ["2018-01-01T00:00:00Z", "2018-01-01T01:00:01.5+01:00", None],
    ],
)
def test_dates_of_any_unit_zone_or_writing(column):
    frame = pd.DataFrame(EVENTS | {"time": column})
    for kind in (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        assert times(Interactions.from_frame(kind, time="time")) == SECONDS


@pytest.mark.parametrize("time", ["soon", "NA", "01/02/2018", "2018-13"])
def test_times_of_files_that_are_none_are_named(time, tmp_path):
    (tmp_path / "a.csv").write_text(f"user,item,time\na,1,2018-01-01\nb,2,{time}\n")
    with pytest.raises(InvalidDataError, match="line 3: Expected dates or numbers in column 'time', got "):
        Interactions.read(tmp_path / "a.csv", time="time")
