import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from recvae import Interactions
from recvae.errors import DataNotFoundError, InvalidDataError, OutputError, UnknownNameError

EVENTS = {
    "who": ["Zoë", "ann", "Ann", "東", "ann"],
    "what": [-5, 2**62, 7, 7, 7],
    "times": [1.0, 352698.0, 3.0, 0.5, 2.0],
}
NAMES = {"user": "who", "item": "what", "value": "times"}


def same(one, other):
    for name in ("data", "indices", "indptr"):
        first, second = getattr(one.matrix, name), getattr(other.matrix, name)
        assert first.dtype == second.dtype
        assert first.tobytes() == second.tobytes()
    assert one.user_ids.tolist() == other.user_ids.tolist()
    assert one.item_ids.tolist() == other.item_ids.tolist()
    assert [type(i) for i in one.item_ids.tolist()] == [type(i) for i in other.item_ids.tolist()]


def write_csv(path):
    pd.DataFrame(EVENTS).to_csv(path, index=False)


WRITERS = {
    "events.parquet": lambda path: pl.DataFrame(EVENTS).write_parquet(path),
    "pandas.parquet": lambda path: pyarrow.parquet.write_table(pa.Table.from_pandas(pd.DataFrame(EVENTS)), path),
    "events.csv": write_csv,
    "events.tsv": lambda path: pd.DataFrame(EVENTS).to_csv(path, index=False, sep="\t"),
    "events.csv.gz": lambda path: pd.DataFrame(EVENTS).to_csv(path, index=False),
}


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("name", WRITERS)
def test_frames_and_files_of_the_same_events_are_the_same_bit_for_bit(name, kind, tmp_path):
    WRITERS[name](tmp_path / name)
    same(Interactions.read(tmp_path / name, **NAMES), Interactions.from_frame(kind(EVENTS), **NAMES))


@pytest.mark.parametrize("folder", ["events.parquet", "events"])
def test_a_folder_of_parquet_parts(folder, tmp_path):
    frame, folder = pl.DataFrame(EVENTS), tmp_path / folder
    folder.mkdir()
    frame[:2].write_parquet(folder / "1.parquet")
    frame[2:].write_parquet(folder / "2.parquet")
    (folder / "_SUCCESS").touch()
    same(Interactions.read(folder, **NAMES), Interactions.from_frame(frame, **NAMES))
    frame[:1].rename({"times": "often"}).write_parquet(folder / "3.parquet")
    with pytest.raises(InvalidDataError, match=r"Expected one column 'times', but it is missing in .*3\.parquet"):
        Interactions.read(folder, **NAMES)


def hive(folder, **columns):
    """A file in folders called column=value."""
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pa.table(columns), folder / "0.parquet")


def test_folders_called_column_and_value_are_columns(tmp_path):
    """As Spark and Hive write them: dates as dates, numbers as numbers, ids as they are written."""
    for day in ("2020-01-01", "2020-01-02"):
        for who in ("007", "a%20b"):
            hive(tmp_path / "ev" / f"date={day}" / f"who={who}" / "stars=2.5" / "hour=01", user=[1, 2], item=[3, 4])
    for name in ("_SUCCESS", "_metadata", ".0.parquet.crc"):
        (tmp_path / "ev" / name).write_bytes(b"x")
    hive(tmp_path / "ev" / "_temporary", item=["x"])
    data = Interactions.read(tmp_path / "ev", user="who", value="stars", time="date")
    assert data.user_ids.tolist() == ["007", "a b"]
    assert data.matrix.toarray().tolist() == [[5, 5], [5, 5]]
    assert set(data.times.data) == {pd.Timestamp("2020-01-01").timestamp()}
    assert set(Interactions.read(tmp_path / "ev", time="hour").times.data) == {1}
    hive(tmp_path / "ev" / "date=__HIVE_DEFAULT_PARTITION__" / "who=c" / "stars=1", user=[9], item=[3])
    assert Interactions.read(tmp_path / "ev", time="date").times.data.min() == 0
    with pytest.raises(InvalidDataError, match=r"Expected one column 'hour', but it is missing in .*who=c"):
        Interactions.read(tmp_path / "ev", time="hour")


def test_types_of_a_folder_are_brought_to_one(tmp_path):
    first = {"user": pa.array([1, 2], pa.int32()), "item": ["a", "b"], "value": [1, 2], "odd": ["x", "y"]}
    second = {"item": pa.array(["c", "a"]).dictionary_encode(), "value": [0.5, 1], "user": [2**40, 2], "odd": [1, 2]}
    third = {"user": pa.array([7], pa.uint8()), "item": pa.array(["é"], pa.large_string()), "value": [None]}
    third["value"] = pa.array([3], pa.int8())
    for number, columns in enumerate((first, second, third)):
        hive(tmp_path / "ev" / str(number), **columns)
    data = Interactions.read(tmp_path / "ev", value="value")
    assert data.user_ids.tolist() == [1, 2, 7, 2**40]
    assert data.item_ids.tolist() == ["a", "b", "c", "é"]
    assert data.matrix.sum() == 7.5
    hive(tmp_path / "ev" / "3", user=["a"], item=["a"], value=[1])
    with pytest.raises(InvalidDataError, match=r"Expected 'user' to be of one type .* got string in .*ev/3/0\.parquet"):
        Interactions.read(tmp_path / "ev")


def test_folders_without_files_and_folders_that_are_loops(tmp_path):
    (tmp_path / "ev").mkdir()
    with pytest.raises(InvalidDataError, match=r"Expected Parquet files in the folder .*, got none"):
        Interactions.read(tmp_path / "ev")
    hive(tmp_path / "ev" / "a", user=[1], item=[1])
    (tmp_path / "ev" / "a" / "b").symlink_to(tmp_path / "ev")
    with pytest.raises(InvalidDataError, match=r"got a loop: .* leads back to"):
        Interactions.read(tmp_path / "ev")


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv"])
def test_what_is_written_is_read_again(ending, tmp_path):
    data = Interactions.from_frame(pd.DataFrame(EVENTS), **NAMES)
    data.write(tmp_path / f"out.{ending}")
    same(Interactions.read(tmp_path / f"out.{ending}", value="value"), data)
    assert len(list(tmp_path.iterdir())) == 1


def test_leading_zeros_make_text_of_all_ids_of_a_text_file(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\n007,1\n7,2\n")
    data = Interactions.read(tmp_path / "a.csv")
    assert data.user_ids.tolist() == ["007", "7"]
    assert data.item_ids.tolist() == [1, 2]


def test_the_filters_work_on_files(tmp_path):
    write_csv(tmp_path / "events.csv")
    data = Interactions.read(tmp_path / "events.csv", **NAMES, min_value=2, values="log1p")
    assert data.user_ids.tolist() == ["Ann", "ann"]
    assert data.values == "log1p"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\n1,2\n3,4,5\n6,7\n", "line 3: Expected 2 columns, got 3"),
        ("user,thing\n1,2\n", r"one column 'item', but it is missing; the columns are \['user', 'thing'\]"),
        ("user,item,user\n1,2,3\n", "one column 'user', but it stands 2 times"),
        ("user,item\n", "at least one event"),
        ("", "cannot be read: Empty CSV file"),
        ("user,item\n1,2\n,3\n", "a value in every row of 'user', got none in line 3 of .*; drop such rows"),
    ],
)
def test_broken_text_files_are_said_in_a_sentence(text, message, tmp_path):
    (tmp_path / "broken.csv").write_text(text)
    with pytest.raises(InvalidDataError, match=message):
        Interactions.read(tmp_path / "broken.csv")


def test_text_where_numbers_belong(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,stars\n1,2,good\n")
    with pytest.raises(InvalidDataError, match="Expected numbers in column 'stars', got string"):
        Interactions.read(tmp_path / "a.csv", value="stars")


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"file of events at .*nowhere\.csv"):
        Interactions.read(tmp_path / "nowhere.csv")
    with pytest.raises(DataNotFoundError, match=r"nowhere\.parquet"):
        Interactions.read(tmp_path / "nowhere.parquet")
    with pytest.raises(UnknownNameError, match=r"no format called 'parket'; did you mean parquet"):
        Interactions.read(tmp_path / "events.csv", format="parket")
    Interactions.from_frame(pd.DataFrame(EVENTS), **NAMES).write(tmp_path / "e.csv")
    (tmp_path / "e.csv").rename(tmp_path / "e.csv.bak")  # any other ending is text
    assert Interactions.read(tmp_path / "e.csv.bak").n_events == 5
    with pytest.raises(InvalidDataError, match=r"got out\.csv\.gz"):
        Interactions.from_frame(pd.DataFrame(EVENTS), **NAMES).write(tmp_path / "out.csv.gz")
    (tmp_path / "latin.csv").write_bytes("größe,item\n1,2\n".encode("latin-1"))
    with pytest.raises(InvalidDataError, match=r"latin\.csv"):
        Interactions.read(tmp_path / "latin.csv", user="größe", encoding="utf-8")
    assert Interactions.read(tmp_path / "latin.csv", user="größe").user_ids.tolist() == [1]
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InvalidDataError, match=r"cut\.parquet"):
        Interactions.read(tmp_path / "cut.parquet")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"user,item\n1,2\n" * 100)[:40])
    with pytest.raises(InvalidDataError, match=r"cut\.csv\.gz"):
        Interactions.read(tmp_path / "cut.csv.gz")
    with pytest.raises(OutputError):
        Interactions.from_frame(pd.DataFrame(EVENTS), **NAMES).write("/proc/nowhere/out.csv")


def test_gaps_in_a_dictionary_are_gaps():
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
    with pytest.raises(InvalidDataError, match="every row of 'user', got none in row 1"):
        Interactions.from_frame(pa.table({"user": ids, "item": [1, 2]}))


def test_a_description_for_people():
    data = Interactions.from_frame(pd.DataFrame(EVENTS), **NAMES)
    text = data.describe()
    assert "4 users x 3 items, 5 events (41.667% of all pairs)" in text
    assert "352,698" in text
    assert "are the rows the items?" not in text
    wide = pa.table({"user": np.zeros(60, dtype=int), "item": np.arange(60)})
    assert "60 times as many items as users: are the rows the items?" in Interactions.from_frame(wide).describe()
