import hashlib
import json
import os
import resource
import signal
import sys
import tempfile
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae import Interactions, strong_split
from recvae.cli.main import main
from recvae.data.rows import transform_values
from recvae.datasets.sample import make_sample
from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
    NotEnoughMemoryError,
    OutOfRangeError,
    OutputError,
    RecvaeError,
    UnknownNameError,
)

pytest.importorskip("duckdb")

from recvae.data.shards import Shards, write_shards
from recvae.data.shards.cells import cut
from recvae.data.shards.files import ShardFile, shard_bytes
from recvae.data.shards.write import STAGE
from recvae.utils.folder import SCRATCH, Written, _checksum, digest_of, load_manifest
from tests.processes import start_process

QUIET = {"show_progress": False, "users_per_shard": 60}


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """So small that users, pairs and ids lie across their borders."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr("recvae.data.shards.cells.AT_A_TIME", 300)
        context.setattr("recvae.data.shards.cells.BLOCK", 200)
        context.setattr("recvae.data.shards.files.AT_A_TIME", 50)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Events of 320 users in files in folders: ids of text and numbers, repeated, with values from 0 to 1."""
    cells = make_sample(320, 60).interactions.matrix.tocoo()
    random = np.random.default_rng(0)
    rows = np.concatenate([np.arange(cells.nnz), random.integers(0, cells.nnz, 500)])
    random.shuffle(rows)
    users = np.array([f"usér {user * 37 % 320}" for user in cells.row[rows]], dtype=object)
    columns = {"who": users, "film": cells.col[rows].astype(np.int16), "stars": random.integers(0, 5, len(rows)) / 4}
    table = pa.table(columns | {"when": random.integers(0, 10**9, len(rows))})
    place = tmp_path_factory.mktemp("events")
    for number, start in enumerate(range(0, len(table), 1500)):
        (place / f"day={number % 2}").mkdir(exist_ok=True)
        pq.write_table(table[start : start + 1500], place / f"day={number % 2}" / f"{number}.parquet")
    (place / "_SUCCESS").touch()
    return place


NAMES = {"user": "who", "item": "film", "value": "stars"}


@pytest.fixture(scope="module")
def unbroken(folder, tmp_path_factory):
    """The files of a run in one go, as bytes by name, users held out among them."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    write_shards(folder, out, **NAMES, heldout_users=40, **QUIET)
    return contents(out)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(shards, data):
    """Whether shards are the interactions, to the last bit."""
    assert (shards.n_users, shards.n_items, shards.n_events) == (data.n_users, data.n_items, data.n_events)
    assert shards.values == data.values
    assert shards.user_ids.to_pylist() == data.user_ids.tolist()
    assert shards.item_ids.dtype == data.item_ids.dtype
    assert shards.item_ids.tolist() == data.item_ids.tolist()
    assert (shards.item_counts == np.bincount(data.matrix.indices, minlength=data.n_items)).all()
    equal(shards.rows(0, shards.n_users), data.matrix)
    assert shards.fingerprint() == data.fingerprint()
    mean = transform_values(data.matrix, data.values).data.mean(dtype=np.float64)
    assert shards.mean_value() == pytest.approx(mean, rel=1e-12)


def equal(matrix, other):
    assert matrix.shape == other.shape
    assert matrix.dtype == other.dtype == np.float32
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(matrix, name), getattr(other, name))


# what comes out ------------------------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"value": "stars", "values": "log1p"},
    {"value": "stars", "min_value": 0.5, "min_user": 7, "min_item": 30, "values": "raw"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_shards_are_what_is_read_into_memory(options, folder, tmp_path):
    options = {"user": "who", "item": "film"} | options
    shards = write_shards(folder, tmp_path / "out", **options, **QUIET)
    same(shards, Interactions.read(folder, **options))
    shards.check(deep=True)
    assert names(tmp_path / "out") == [
        "_manifest.json",
        "items.parquet",
        *(f"shard-{number:05}.arrow" for number in range(-(-shards.n_users // 60))),
        "users.parquet",
    ]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_held_out_users_are_those_of_the_strong_split(options, folder, tmp_path):
    options = {"user": "who", "item": "film"} | options
    shards = write_shards(folder, tmp_path / "out", **options, **QUIET, heldout_users=40, split_seed=3, test_share=0.4)
    split = strong_split(Interactions.read(folder, **options), 40, seed=3, test_share=0.4)
    same(shards, split.train)
    for mine, theirs in ((shards.valid, split.valid), (shards.test, split.test)):
        equal(mine.fold_in, theirs.fold_in)
        equal(mine.held_out, theirs.held_out)
        assert mine.users.tolist() == theirs.users.tolist()
        assert (mine.dropped, mine.n_train, mine.train_rows) == (theirs.dropped, theirs.n_train, None)
        assert (mine.item_counts == theirs.item_counts).all()


IDS = st.sampled_from([[3, 1, 2, 40, 5, -6], ["b", "a", "é", "10", "9", "Z"], [2**63 + 5, 1, 2, 3, 4, 5]])


@st.composite
def small_data(draw):
    """A table of events, in parts, and options."""
    n = draw(st.integers(1, 40))
    table = {
        name: [ids[place] for place in draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))]
        for name, ids in (("user", draw(IDS)), ("item", draw(IDS)))
    }
    options = {name: draw(st.integers(0, 3)) for name in ("min_user", "min_item")}
    if draw(st.booleans()):
        table["v"] = draw(st.lists(st.sampled_from([0, 0.1, 0.7, 1, 2.5, 1e9]), min_size=n, max_size=n))
        options["value"] = "v"
        options["min_value"] = draw(st.sampled_from([None, 0.5, 1, 2]))
    columns = {name: pa.array(column, _kind(column)) for name, column in table.items()}
    heldout = draw(st.sampled_from([None, None, 1, 2]))
    return pa.table(columns), draw(st.integers(1, 3)), options, heldout, draw(st.sampled_from([1, 3, 50]))


def _kind(column):
    if isinstance(column[0], str):
        return pa.string()
    return pa.float64() if any(isinstance(number, float) for number in column) else _whole(column)


def _whole(column):
    return pa.uint64() if max(column) > 2**63 else pa.int64()


@given(small_data())
@settings(max_examples=40)
def test_whatever_the_events_it_is_as_in_memory(data):
    table, n_parts, options, heldout, most_events = data
    with tempfile.TemporaryDirectory() as place, patch("recvae.data.shards.write.EVENTS_PER_SHARD", most_events):
        path = Path(place) / "in"
        path.mkdir()
        size = -(-len(table) // n_parts)
        for start in range(0, len(table), size):
            pq.write_table(table[start : start + size], path / f"{start}.parquet")
        try:
            expected = Interactions.read(path, **options)
            split = None if heldout is None else strong_split(expected, heldout)
        except RecvaeError as error:
            with pytest.raises(type(error)):
                write_shards(path, Path(place) / "out", **options, heldout_users=heldout, **QUIET)
            assert names(Path(place)) == ["in"]
            return
        shards = write_shards(path, Path(place) / "out", **options, heldout_users=heldout, **QUIET)
        same(shards, expected if split is None else split.train)
        if split is not None:
            equal(shards.test.fold_in, split.test.fold_in)
            equal(shards.valid.held_out, split.valid.held_out)


def test_lists_of_items(tmp_path):
    pq.write_table(pa.table({"user": ["b", "a", "b", "c"], "item": [[3, 1], [1], [1], []]}), tmp_path / "l.parquet")
    shards = write_shards(tmp_path / "l.parquet", tmp_path / "out", **QUIET)
    same(shards, Interactions.from_frame(pa.table({"user": ["a", "b", "b", "b"], "item": [1, 3, 1, 1]})))


@pytest.mark.parametrize("kind", ["category", "large_string", "dictionary of numbers"])
def test_ids_of_any_width(kind, tmp_path):
    table = pa.table({"user": ["b", "a", "b", "c"], "item": ["y", "é", "z", "y"]})
    if kind == "category":
        table = pa.Table.from_pandas(table.to_pandas().astype("category"))
    elif kind == "large_string":
        table = table.cast(pa.schema([("user", pa.large_string()), ("item", pa.large_string())]))
    else:
        numbers = pa.array([7, -2, 7, 300], pa.int16()).dictionary_encode()
        table = table.set_column(0, "user", numbers)
    pq.write_table(table, tmp_path / "events.parquet")
    shards = write_shards(tmp_path / "events.parquet", tmp_path / "out", **QUIET)
    same(shards, Interactions.read(tmp_path / "events.parquet"))


def test_rows_and_shards(folder, tmp_path):
    shards = write_shards(folder, tmp_path / "out", **NAMES, **QUIET)
    data = Interactions.read(folder, **NAMES).matrix
    wanted = np.random.default_rng(0).integers(0, shards.n_users, 500)
    equal(shards.take(wanted), data[wanted])
    equal(shards.rows(50, 130), data[50:130])
    assert shards.take([]).shape == shards.rows(7, 7).shape == (0, shards.n_items)
    equal(shards.shard(2), data[120:180])
    assert not shards.shard(2).indices.flags.owndata
    assert not shards.shard(2).indices.flags.writeable
    assert not shards.shard(2).data.flags.owndata
    assert shards.bounds.tolist() == [0, 60, 120, 180, 240, 300, shards.n_users]
    for rows in ([shards.n_users], [-1]):
        with pytest.raises(OutOfRangeError, match=f"Expected rows from 0 to {shards.n_users - 1}, got"):
            shards.take(rows)
    with pytest.raises(InvalidTypeError, match="a list of integers as rows, got float64"):
        shards.take([1.5])
    with pytest.raises(OutOfRangeError, match="Expected 0 <= start <= stop"):
        shards.rows(3, 2)
    with pytest.raises(OutOfRangeError, match="Expected a shard from 0 to 5, got 6"):
        shards.shard(6)
    with pytest.raises(InvalidParameterError, match="Expected shards written with heldout_users"):
        _ = shards.valid


@pytest.mark.parametrize(("most_users", "most_events"), [(1, 100), (3, 100), (100, 1), (100, 7), (4, 12), (100, 100)])
def test_runs_of_users(most_users, most_events):
    lengths = np.random.default_rng(0).integers(0, 9, 50)
    bounds = cut(lengths, most_users, most_events)
    assert bounds[0] == 0
    assert bounds[-1] == 50
    runs = np.diff(bounds)
    events = np.add.reduceat(lengths, bounds[:-1])
    assert (runs >= 1).all()
    assert (runs <= most_users).all()
    assert (events[runs > 1] <= most_events).all()
    longer = events[:-1] + lengths[bounds[1:-1]]  # each is as long as it may be
    assert ((runs[:-1] == most_users) | (longer > most_events)).all()


def test_little_memory_of_python(tmp_path):
    """Of what numpy and Python take, the most is a block and a shard; DuckDB has its own limit."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(2000), 100)
    table = pa.table({"user": users, "item": random.integers(0, 20_000, len(users))}).take(
        random.permutation(len(users))
    )
    pq.write_table(table, tmp_path / "events.parquet")
    with patch("recvae.data.shards.cells.AT_A_TIME", 5000), patch("recvae.data.shards.cells.BLOCK", 5000):
        tracemalloc.start()
        try:
            shards = write_shards(
                tmp_path / "events.parquet", tmp_path / "out", show_progress=False, users_per_shard=40
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    numbers = 8 * (4 * shards.n_items + 10 * shards.n_users)  # what there is for each item and user
    assert shards.n_events > 190_000
    assert peak < numbers + 2_000_000 < 8 * 3 * shards.n_events


# stopped and resumed ------------------------------------------------------------------------------------------------


class StopError(Exception):
    pass


def stop_at(name):
    def on_part(piece):
        if piece.file == name:
            raise StopError

    return on_part


@pytest.mark.parametrize("name", ["items.parquet", "test.arrow", "shard-00002.arrow"])
def test_a_run_that_stopped_is_gone_on_with(name, folder, tmp_path, unbroken):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        write_shards(folder, out, **NAMES, heldout_users=40, on_part=stop_at(name), **QUIET)
    assert not (out / SCRATCH).exists()
    with pytest.raises(
        InvalidDataError, match=r"Expected shards that are finished, got .* run the recvae shard command"
    ):
        Shards(out)
    there, made = {file for file in names(out) if not file.startswith((".", "_"))}, []
    with patch("recvae.data.shards.write.store_cells") as sort:  # what is sorted stays sorted
        write_shards(folder, out, **NAMES, heldout_users=40, on_part=lambda piece: made.append(piece.file), **QUIET)
    sort.assert_not_called()
    assert name in there
    assert there.isdisjoint(made)
    assert contents(out) == unbroken
    write_shards(folder, out, **NAMES, heldout_users=40, on_part=stop_at(name), **QUIET)
    assert contents(out) == unbroken


KILLED = """
import os, pathlib, signal, sys
import recvae.data.shards.files
from recvae.data.shards import write_shards
recvae.data.shards.files.AT_A_TIME = 50
method = sys.argv[3]
before = getattr(pathlib.Path, method)

def last(self, target):  # in the middle: the files are written, and not at their path
    if pathlib.Path(target).name == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(self, target)

setattr(pathlib.Path, method, last)
names = {"user": "who", "item": "film", "value": "stars"}
write_shards(sys.argv[1], sys.argv[2], **names, heldout_users=40, show_progress=False, users_per_shard=60)
"""


@pytest.mark.parametrize(("method", "name"), [("rename", STAGE), ("replace", "shard-00002.arrow")])
def test_a_run_that_was_killed_is_gone_on_with_and_cleaned_up(method, name, folder, tmp_path, unbroken):
    out = tmp_path / "out"
    process = start_process(KILLED, folder, out, method, name)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    left = names(out)
    assert SCRATCH in left
    assert (STAGE in left) == (method == "replace")
    (out / SCRATCH / "sort").mkdir(exist_ok=True)  # as if it had sorted on disk
    (out / SCRATCH / "sort" / "left").write_bytes(b"over")
    command = ["shard", "--input", str(folder), "--user", "who", "--item", "film", "--value", "stars"]
    assert main([*command, "--heldout-users", "40", "--users-per-shard", "60", "--out", str(out)]) == 0
    assert contents(out) == unbroken


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_stage_is_written_again(damage, folder, tmp_path, unbroken):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        write_shards(folder, out, **NAMES, heldout_users=40, on_part=stop_at("users.parquet"), **QUIET)
    content = (out / STAGE / "items").read_bytes()
    (out / STAGE / "items").write_bytes(content[:-4] if damage == "cut" else content[:-4] + b"\0\0\0\0")
    write_shards(folder, out, **NAMES, heldout_users=40, **QUIET)
    assert contents(out) == unbroken


@pytest.mark.parametrize("name", ["shard-00002.arrow", "users.parquet", "valid.arrow"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damage_is_found_named_and_repaired(damage, name, folder, tmp_path, unbroken):
    out = tmp_path / "out"
    out.mkdir()
    for file, content in unbroken.items():
        (out / file).write_bytes(content)
    shards, content = Shards(out), unbroken[name]
    (out / name).unlink()
    if damage != "gone":
        (out / name).write_bytes(content[:-9] if damage == "cut" else content[:-9] + b"x" + content[-8:])
    if damage == "changed":
        with pytest.raises(InvalidDataError, match=f"Expected .*{name} as it was written, got other content; run the"):
            Shards(out).check(deep=True)
    else:
        words = "is missing" if damage == "gone" else f"Expected {len(content):,} bytes in .*{name}, got"
        with pytest.raises(InvalidDataError, match=f"{words}.*; run the recvae shard command that wrote it once more"):
            Shards(out)
    if damage != "changed" and name != "users.parquet":  # under the hands of a reader
        with pytest.raises(InvalidDataError, match=f"{name} is not as it was written; run the recvae shard command"):
            _ = shards.shard(2) if name.startswith("shard") else shards.valid
    made = []
    write_shards(folder, out, **NAMES, heldout_users=40, on_part=lambda piece: made.append(piece.file), **QUIET)
    assert made == [name]
    assert contents(out) == unbroken


def test_arrays_that_point_elsewhere_are_refused(tmp_path, unbroken):
    """Compiled code would follow them."""
    for file, content in unbroken.items():
        (tmp_path / file).write_bytes(content)
    shards = Shards(tmp_path)
    path = tmp_path / "shard-00001.arrow"
    content = bytearray(path.read_bytes())
    place = content.index(shards.shard(1).indices.tobytes())
    content[place : place + 4] = (10**6).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"shard-00001\.arrow is not as it was written"):
        shards.shard(1)
    content[place : place + 400] = b"\xff" * 400
    path.write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"shard-00001\.arrow is not as it was written"):
        shards.rows(60, 70)
    path.write_bytes(bytes(len(content)))
    with pytest.raises(InvalidDataError, match=r"shard-00001\.arrow is not as it was written"):
        shards.shard(1)


def test_another_setting_or_input_in_the_same_folder_is_refused(folder, tmp_path, unbroken):
    for file, content in unbroken.items():
        (tmp_path / file).write_bytes(content)

    def refused(words, **options):
        with pytest.raises(InvalidParameterError, match=words):
            write_shards(folder, tmp_path, **NAMES | {"heldout_users": 40} | QUIET | options)
        assert contents(tmp_path) == unbroken

    refused("the users_per_shard with which .* was begun, got 61 instead of 60", users_per_shard=61)
    refused("the min_user with which .* got 2 instead of 0", min_user=2)
    refused("the columns with which", value=None)
    refused("the values with which .* got raw instead of binary", values="raw")
    refused("the heldout_users with which .* got None instead of 40", heldout_users=None)
    first = sorted(folder.rglob("*.parquet"))[0]
    stat = first.stat()
    os.utime(first, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    try:
        refused("the input with which .* got other files or changed ones")
    finally:
        os.utime(first, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_second_run_at_the_same_time_is_refused(folder, tmp_path, unbroken):
    out = tmp_path / "out"

    def second(piece):
        if piece.file == "shard-00001.arrow":
            with pytest.raises(OutputError, match="for this run alone, but another one is writing to it"):
                write_shards(folder, out, **NAMES, heldout_users=40, **QUIET)

    write_shards(folder, out, **NAMES, heldout_users=40, on_part=second, **QUIET)
    assert contents(out) == unbroken


@contextmanager
def full_disk(n_bytes):
    """A limit of the size of files stands in for the disk's."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("limit", "left"), [(100, []), (6000, []), (20_000, ["_manifest.json", "items.parquet"])])
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(limit, left, folder, tmp_path, capsys):
    """At the ids, at the cells, at the first shard."""
    command = ["shard", "--input", str(folder), "--user", "who", "--item", "film", "--value", "stars"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    with full_disk(limit):
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "File too large" in said
    there = names(tmp_path / "out") if left else names(tmp_path)
    assert there == ([STAGE, *left, "users.parquet"] if left else ["whole"])
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_disk_that_is_full_in_the_sort_is_a_sentence(folder, tmp_path):
    import duckdb

    full = duckdb.IOException('IO Error: Could not write file "x.tmp": No space left on device')
    with (
        patch("recvae.data.shards.cells.NumberedEvents._single", side_effect=full),
        pytest.raises(OutputError, match=r"Expected room on the disk of the output to sort in, got: .* No space left"),
    ):
        write_shards(folder, tmp_path / "out", **NAMES, **QUIET)
    assert names(tmp_path) == []


# what cannot be used -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"user": ["a", None], "item": [1, 1]}, {}, "every row of 'user', got none in 1 of 2 rows"),
        ({"user": ["a"], "item": [1], "v": [float("nan")]}, {"value": "v"}, "Expected finite values"),
        ({"user": ["a"] * 2, "item": [1, 2], "v": [-1, 4]}, {"value": "v"}, "values of zero or more, got -1"),
        ({"user": ["a"], "item": [1], "v": [0]}, {"value": "v"}, "a value of more than 0, got none"),
        ({"user": ["a"], "item": [1], "v": ["x"]}, {"value": "v"}, "Expected numbers in column 'v', got string"),
        ({"user": [1.5], "item": [1]}, {}, "Expected integers or strings as ids in 'user', got double"),
        ({"user": ["a"], "thing": [1]}, {}, "Expected one column 'item', but it is missing"),
        ({"user": pa.array([], pa.string()), "item": pa.array([], pa.string())}, {}, "at least one event, got none"),
        ({"user": ["a", "b"], "item": [1, 2]}, {"min_item": 2}, "No events are left: .* lower min_user or min_item"),
    ],
)
def test_bad_events_are_a_sentence_and_nothing_is_written(columns, options, message, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(InvalidDataError, match=message):
        write_shards(tmp_path / "bad.parquet", tmp_path / "out", **QUIET, **options)
    assert names(tmp_path) == ["bad.parquet"]


def test_bad_requests_are_a_sentence(folder, tmp_path, monkeypatch):
    def refused(error, words, out=tmp_path / "out", **options):
        with pytest.raises(error, match=words):
            write_shards(folder, out, **NAMES | QUIET | options)
        assert names(tmp_path) == []

    refused(InvalidParameterError, "users_per_shard to be an integer of at least 1, got 0", users_per_shard=0)
    refused(InvalidParameterError, "memory_mib to be an integer of at least 64", memory_mib=1)
    refused(InvalidParameterError, "min_user to be an integer of at least 0", min_user=1.5)
    refused(InvalidParameterError, "min_value to be a number, got nan", min_value=float("nan"))
    refused(InvalidParameterError, "the column of values for min_value=3", min_value=3, value=None)
    refused(InvalidParameterError, "heldout_users to be an integer of at least 1, got 0", heldout_users=0)
    refused(InvalidParameterError, "ask for 159 held-out users or fewer", heldout_users=160)
    refused(InvalidParameterError, "Expected a test_share between 0 and 1", test_share=1.0)
    refused(UnknownNameError, "no values transform called 'sqrt'", values="sqrt")
    refused(InvalidParameterError, "a folder for the parts outside of", out=folder / "out")
    monkeypatch.setattr("recvae.data.shards.write.LEAST_MIB", 1)
    refused(NotEnoughMemoryError, r"Expected 1 MiB of memory.* give it more \(memory_mib\)", memory_mib=1)
    for library in ("duckdb", "filelock"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, library, None)
            refused(MissingDependencyError, r'run: pip install "recvae\[large\]"')


def test_what_is_no_folder_of_shards_is_refused(tmp_path, unbroken):
    with pytest.raises(DataNotFoundError, match="Expected a folder of shards, as recvae shard writes it, got"):
        Shards(tmp_path)
    manifest = json.loads(unbroken["_manifest.json"])

    def refused(words, **changes):
        (tmp_path / "_manifest.json").write_text(json.dumps(manifest | changes))
        with pytest.raises(InvalidDataError, match=words):
            Shards(tmp_path)

    refused("Expected a folder of shards, got .* which holds lists; take another", kind="lists")
    refused("is damaged .it is of format 2, and 1 is known.", format=2)
    refused("is damaged", parts=[{"file": "x"}])
    refused("is damaged", facts={})
    (tmp_path / "_manifest.json").write_text('{"kind": ')
    with pytest.raises(InvalidDataError, match=r"is damaged .* delete the folder to begin again"):
        Shards(tmp_path)


# the command ---------------------------------------------------------------------------------------------------------


def test_the_command(folder, tmp_path, capsys):
    out, options = tmp_path / "new" / "shards", ["--user", "who", "--item", "film", "--value", "stars"]
    filters = ["--min-value", "0.5", "--min-user", "7", "--min-item", "30", "--values", "raw"]
    assert main(["shard", "--input", str(folder), *options, *filters, "--out", f"{out}/", "--json"]) == 0
    captured = capsys.readouterr()
    data = Interactions.read(folder, **NAMES, min_value=0.5, min_user=7, min_item=30, values="raw")
    same(Shards(out), data)
    found = json.loads(captured.out)
    assert (found["users"], found["items"], found["events"]) == (data.n_users, data.n_items, data.n_events)
    assert f"{data.n_events:,} events of {data.n_users:,} users on {data.n_items:,} items are in {out}" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "OUT"], "Expected one column 'user', but it is missing"),
        (["--user", "who", "--item", "film"], "Expected out for recvae shard"),
        (
            ["--user", "who", "--item", "film", "--users-per-shard", "0", "--out", "OUT"],
            "users_per_shard to be an integer",
        ),
        (["--user", "who", "--item", "film", "--min-value", "1", "--out", "OUT"], "the column of values for min_value"),
        (
            ["--user", "who", "--item", "film", "--heldout-users", "900", "--out", "OUT"],
            "Expected more than 1800 users",
        ),
        (["--user", "who", "--item", "film", "--out", "/proc/nowhere"], "Expected a file that can be written"),
        (
            ["--input", "odd", "--user", "who", "--item", "film", "--out", "OUT"],
            "Expected 'film' to be of one type in all files, got string in",
        ),
        (["--input", "cut", "--user", "who", "--item", "film", "--out", "OUT"], "2.parquet"),
        (["--input", "x.csv", "--user", "who", "--item", "film", "--out", "OUT"], "Expected a Parquet file (.parquet)"),
    ],
)
def test_bad_commands_are_one_sentence_and_leave_nothing(arguments, message, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = sorted(folder.rglob("*.parquet"))[0]
    for name in ("odd", "cut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.parquet").write_bytes(first.read_bytes())
    pq.write_table(
        pq.read_table(first).cast(pa.schema({"who": "string", "film": "string", "stars": "double", "when": "int64"})),
        "odd/2.parquet",
    )
    (tmp_path / "cut" / "2.parquet").write_bytes(first.read_bytes()[:-9])
    before = names(tmp_path)
    source = [] if "--input" in arguments else ["--input", str(folder)]
    assert main(["shard", *source, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert names(tmp_path) == before


# files that lie ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lying(tmp_path):
    """Shards with values, and a function that changes one of their files, with a manifest that fits again."""
    random = np.random.default_rng(0)
    columns = {"user": random.integers(0, 30, 400), "item": random.integers(0, 25, 400), "v": random.random(400) + 1}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    out = tmp_path / "out"
    write_shards(tmp_path / "e.parquet", out, value="v", values="raw", users_per_shard=15, show_progress=False)

    def change(name, content):
        (out / name).write_bytes(content)
        manifest = load_manifest(out, "shards", ShardFile)
        digest = hashlib.sha256(content).hexdigest()
        parts = [
            replace(part, bytes=len(content), sha256=digest) if part.file == name else part for part in manifest.parts
        ]
        replace(manifest, parts=parts).write(out)

    return out, change


def refused_or_sound(out):
    try:
        shards = Shards(out)
        rows = shards.rows(0, shards.n_users)
        ids = shards.item_ids, shards.item_counts, shards.user_ids
    except InvalidDataError:
        return False
    rows.check_format(full_check=True)
    assert rows.has_canonical_format
    assert (rows.data > 0).all()
    assert np.isfinite(rows.data).all()
    assert len(ids[0]) == len(ids[1]) == shards.n_items
    return True


@pytest.mark.parametrize("lie", [2**62, -1, 2**31, 0])
@pytest.mark.parametrize("name", ["shard-00000.arrow", "items.parquet"])
def test_any_number_of_a_file_may_lie(name, lie, lying):
    """Lengths and offsets in the Arrow metadata among them: refused, or what is read is sound."""
    out, change = lying
    good, found = (out / name).read_bytes(), []
    for place in range(0, len(good) - 8, 16 if name.endswith("parquet") else 8):
        changed = bytearray(good)
        changed[place : place + 8] = lie.to_bytes(8, "little", signed=True)
        change(name, bytes(changed))
        found.append(refused_or_sound(out))
    assert not all(found)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38, -1.0, 0.0])
def test_values_that_are_none_are_refused(value, lying):
    out, change = lying
    stored = Shards(out).stored(0)
    values = stored.values.copy()
    values[7] = value
    change("shard-00000.arrow", shard_bytes(replace(stored, values=values)))
    with pytest.raises(InvalidDataError, match=r"shard-00000\.arrow is not as it was written"):
        Shards(out).shard(0)


@pytest.mark.parametrize("lie", ["unsorted", "repeated", "negative", "too large", "offsets that wrap", "backwards"])
def test_items_and_offsets_that_lie_are_refused(lie, lying):
    out, change = lying
    stored = Shards(out).stored(0)
    items, indptr = stored.items.copy(), stored.indptr.copy()
    if lie == "unsorted":
        items[:2] = items[1::-1]
    elif lie == "repeated":
        items[1] = items[0]
    elif lie == "negative":
        items[0] = -1
    elif lie == "too large":
        items[indptr[1] - 1] = 25
    elif lie == "backwards":
        indptr[1:3] = indptr[2:0:-1]
    else:
        indptr[1:3] = 2**31 - 1, -2
    content = bytearray((out / "shard-00000.arrow").read_bytes())
    for before, after in ((stored.items, items), (stored.indptr, indptr)):
        while (place := content.find(before.tobytes())) >= 0 and not np.array_equal(before, after):
            content[place : place + before.nbytes] = after.tobytes()
    change("shard-00000.arrow", bytes(content))
    with pytest.raises(InvalidDataError, match=r"shard-00000\.arrow is not as it was written"):
        Shards(out).shard(0)


@pytest.mark.parametrize("lie", ["fewer", "repeated", "descending", "no value", "floats", "counts", "negative counts"])
def test_ids_that_lie_are_refused(lie, lying):
    out, change = lying
    table = pq.read_table(out / "items.parquet")
    ids, counts = table["item"].to_pylist(), table["users"].to_pylist()
    if lie == "fewer":
        ids, counts = ids[1:], counts[1:]
    elif lie == "repeated":
        ids[1] = ids[0]
    elif lie == "descending":
        ids = ids[::-1]
    elif lie == "no value":
        ids[3] = None
    elif lie == "floats":
        ids = [float(name) for name in ids]
    else:
        step = 1 if lie == "counts" else counts[0] + 1
        counts[0] -= step
        counts[1] += 2 * step if lie == "counts" else step
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"item": ids, "users": counts}), sink)
    change("items.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(InvalidDataError, match=r"items\.parquet is not as it was written"):
        _ = Shards(out).item_ids, Shards(out).item_counts


def test_a_shard_that_becomes_shorter_later(lying):
    """What was read stays, and what is read then is refused: a memory map would end in a crash."""
    out, _ = lying
    shards = Shards(out)
    rows, expected = shards.shard(0), shards.shard(0).toarray()
    os.truncate(out / "shard-00000.arrow", 10)
    np.testing.assert_array_equal(rows.toarray(), expected)
    with pytest.raises(InvalidDataError, match=r"shard-00000\.arrow is not as it was written"):
        shards.shard(0)


ODD = [None, True, -1, 10**30, float("nan"), 1.5, "x", "\ud800", "../../x", "a/b", [], {}, [[1]]]


@pytest.mark.parametrize("signed", [False, True], ids=["as before", "with a checksum"])
def test_whatever_a_manifest_says(signed, lying):
    out, _ = lying
    good = json.loads((out / "_manifest.json").read_text())
    for owner, names in (
        ((), [*good]),
        (("settings",), ["values", "heldout_users", "split_seed", "test_share"]),
        (("facts",), [*good["facts"]]),
        (("parts", 2), [*good["parts"][2]]),
    ):
        for name in (name for name in names if (owner, name) != ((), "sha256")):
            for odd in ODD:
                found = json.loads(json.dumps(good))
                place = found
                for step in owner:
                    place = place[step]
                if place[name] == odd or (name, odd) in (("heldout_users", None), ("done", True), ("total", 1.5)):
                    continue
                place[name] = odd
                del found["sha256"]
                if signed:
                    found["sha256"] = _checksum(found)
                (out / "_manifest.json").write_text(json.dumps(found))
                with pytest.raises(InvalidDataError) as said:
                    Shards(out)
                assert "\n" not in str(said.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, '{"format":' + "1" * 5000 + "}", "3", "[]", "\xff"])
def test_what_is_no_manifest(text, tmp_path):
    (tmp_path / "_manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidDataError, match=r"_manifest\.json is damaged \([^\n]*\): delete the folder"):
        Shards(tmp_path)


def test_facts_are_held_against_the_checksum_and_older_manifests_have_none(lying):
    out, _ = lying
    manifest = json.loads((out / "_manifest.json").read_text())
    fingerprint = Shards(out).fingerprint()
    manifest["facts"]["fingerprint"] = "0" * 32
    (out / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidDataError, match="does not fit its checksum"):
        Shards(out)
    manifest["facts"]["fingerprint"] = fingerprint
    del manifest["sha256"]
    (out / "_manifest.json").write_text(json.dumps(manifest))
    assert Shards(out).fingerprint() == fingerprint


@pytest.mark.parametrize("name", ["lengths", "counts", "items", "values", "users.parquet", "items.parquet"])
def test_a_stage_that_lies_is_made_again(name, folder, tmp_path, unbroken):
    """With a manifest that fits."""
    out = tmp_path / "out"
    with pytest.raises(StopError):
        write_shards(folder, out, **NAMES, heldout_users=40, on_part=stop_at("users.parquet"), **QUIET)
    stage = out / STAGE
    content = (stage / name).read_bytes()
    (stage / name).write_bytes(content[::-1] if name.endswith("parquet") else b"\xff" * 8 + content[8:])
    manifest = load_manifest(stage, "cells", Written)
    parts = [replace(part, sha256=digest_of(stage / part.file)) for part in manifest.parts]
    replace(manifest, parts=parts).write(stage)
    write_shards(folder, out, **NAMES, heldout_users=40, **QUIET)
    assert contents(out) == unbroken


# names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run[1]", "r*n1", "r?n1", "r[!x]n1", "it's", "**"])
def test_names_of_files_are_no_patterns(name, folder, tmp_path):
    """Nor are those of the output, where ids are read again."""
    first, *others = sorted(folder.rglob("*.parquet"))
    for number, place in enumerate(("run1", name)):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.parquet").write_bytes([others[0], first][number].read_bytes())
    shards = write_shards(tmp_path / name, tmp_path / f"out {name}", **NAMES, **QUIET)
    same(shards, Interactions.read(tmp_path / name, **NAMES))
    again = write_shards(tmp_path / name / f"{name}.parquet", tmp_path / "again", **NAMES, **QUIET)
    assert again.fingerprint() == shards.fingerprint()


@pytest.mark.parametrize("name", ["item", "Item", "ITEM", "*", "", "q\"u'", "a.b", "filename", "recvae file"])
def test_names_of_columns_are_exact(name, tmp_path):
    """To DuckDB, case is nothing, and * is all."""
    random = np.random.default_rng(0)
    columns = ["item", "Item", "ITEM", "*", "", "q\"u'", "a.b", "filename", "recvae file"]
    table = {column: random.integers(10 * place, 10 * place + 7, 100) for place, column in enumerate(columns)}
    pq.write_table(pa.table(table | {"user": random.integers(0, 20, 100)}), tmp_path / "e.parquet")
    shards = write_shards(tmp_path / "e.parquet", tmp_path / "out", item=name, **QUIET)
    same(
        shards,
        Interactions.from_frame(pa.table({"user": pq.read_table(tmp_path / "e.parquet")["user"], "item": table[name]})),
    )


def test_folders_are_columns_and_types_are_brought_to_one(tmp_path):
    """As Spark and Hive write them."""
    events = tmp_path / "ev"
    for day, kind in (("2020-01-01", pa.int32()), ("2020-01-02", pa.int64())):
        (events / f"date={day}" / "stars=2.5").mkdir(parents=True)
        table = pa.table({"user": pa.array([1, 2], kind), "item": ["a", "b"], f"only {day}": [0, 0]})
        pq.write_table(table, events / f"date={day}" / "stars=2.5" / "0.parquet")
    for name in ("_SUCCESS", ".0.parquet.crc"):
        (events / name).write_bytes(b"x")
    same(write_shards(events, tmp_path / "one", **QUIET), Interactions.read(events))
    for place, options in enumerate([{"item": "date"}, {"value": "stars", "values": "raw"}]):
        shards = write_shards(events, tmp_path / str(place), **options, **QUIET)
        same(shards, Interactions.read(events, **options))
        assert shards.n_events == (4, 2)[place]


# folders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".recvae-scratch", ".recvae-scratch/lock", STAGE, "_manifest.json", "items.parquet"])
def test_links_in_the_output_are_refused_and_not_followed(name, folder, tmp_path):
    out = tmp_path / "out"
    write_shards(folder, out, **NAMES, **QUIET)
    before = contents(out)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "letters").mkdir()
    (victim / "lock").write_text("mine")
    path = out / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.unlink()
    path.symlink_to(victim / "lock" if name.endswith(("lock", "json", "parquet")) else victim)
    with pytest.raises(OutputError, match="which is a link to something else; delete the link"):
        write_shards(folder, out, **NAMES, **QUIET)
    assert (victim / "letters").exists()
    assert (victim / "lock").read_text() == "mine"
    assert len(contents(out)) >= len(before) - 1


@pytest.mark.parametrize("name", ["loop", "a\0b", "x" * 300])
def test_outputs_that_are_no_folders(name, folder, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((OutputError, InvalidParameterError), match="Expected the path of a file or a folder"):
        write_shards(folder, tmp_path / name, **NAMES, **QUIET)
    assert names(tmp_path) == ["loop"]


def test_new_folders_go_where_nothing_is_written(folder, tmp_path):
    with pytest.raises(InvalidDataError, match="No events are left"):
        write_shards(folder, tmp_path / "a" / "b" / "out", **NAMES, min_item=10**6, **QUIET)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", ["InterruptException", "RuntimeError", "InvalidInputException"])
def test_ctrl_c_while_duckdb_works(error, folder, tmp_path, capsys):
    import duckdb

    kind = getattr(duckdb, error, RuntimeError)
    words = "INTERRUPT Error: Interrupted!" if error != "RuntimeError" else "Query interrupted"
    command = ["shard", "--input", str(folder), "--user", "who", "--item", "film", "--out", str(tmp_path / "out")]
    with patch("recvae.data.shards.cells.NumberedEvents._single", side_effect=kind(words)):
        assert main(command) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert names(tmp_path) == []
