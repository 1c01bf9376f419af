import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from recvae import EASE, Interactions, MultDAE
from recvae.cli.main import main
from recvae.data.histories import ranking_table
from recvae.datasets.sample import make_sample
from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidParameterError,
    MissingDependencyError,
    NotEnoughMemoryError,
    NotFittedError,
    OutputError,
    UnknownUsersError,
)
from recvae.models.baselines import BPR, Popularity
from tests import oracle

pytest.importorskip("duckdb")

from recvae.serving.batch import BulkResult, recommend_to_parquet
from recvae.serving.batch.ordered import by_users
from recvae.utils.folder import SCRATCH, _checksum
from tests.processes import start_process

QUIET = {"show_progress": False, "users_per_part": 60}


@pytest.fixture(scope="module")
def events():
    """320 users with ids of text and of different lengths, repeated events, unknown items, values from 0 to 4."""
    cells = make_sample(320, 60).interactions.matrix.tocoo()
    random = np.random.default_rng(0)
    rows = np.concatenate([np.arange(cells.nnz), random.integers(0, cells.nnz, 500)])
    random.shuffle(rows)
    items = np.array([f"film {item}" for item in cells.col[rows]], dtype=object)
    items[::50] = [f"new {number % 7}" for number in range(len(items[::50]))]
    users = np.array([f"user {user * 37 % 320}" for user in cells.row[rows]], dtype=object)
    return pa.table({"user": users, "item": items, "value": random.integers(0, 5, len(rows)).astype(np.float32)})


@pytest.fixture(scope="module")
def path(events, tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "events.parquet"
    pq.write_table(events, path)
    return path


@pytest.fixture(scope="module")
def model(events):
    known = events.filter(pa.compute.starts_with(events["item"], "film"))
    return EASE(l2=20.0).fit(Interactions.from_frame(known))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("recvae.serving.batch.parts.BLOCK", 25)
    monkeypatch.setattr("recvae.serving.batch.ordered.EVENTS_AT_A_TIME", 300)
    monkeypatch.setattr("recvae.serving.batch.ordered.LISTS_AT_A_TIME", 30)


@pytest.fixture(scope="module")
def unbroken(model, path, tmp_path_factory):
    """The files of a run in one go, as bytes by name."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    recommend_to_parquet(model, path, out, 5, **QUIET)
    return contents(out)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def at_once(model, data, N):
    """The lists of users in memory."""
    rows = data.align(model.item_ids_)[0]
    ids, scores = model.recommend(np.arange(data.n_users), rows.matrix, N=N)
    return ranking_table(data.user_ids, ids, scores, model.item_ids_, model.titles_)


def parts(folder):
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))])


def same(folder, expected):
    table = parts(folder)
    assert table.schema.equals(expected.schema)
    assert table.drop_columns("score").equals(expected.drop_columns("score"))
    np.testing.assert_allclose(table["score"].to_numpy(), expected["score"].to_numpy(), rtol=1e-5, atol=1e-6)


# what comes out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"value": "value"}, {"value": "value", "min_value": 3.0}], ids=str)
@pytest.mark.usefixtures("small_blocks")
def test_the_lists_are_those_of_the_way_in_memory(options, model, path, events, tmp_path):
    result = recommend_to_parquet(model, path, tmp_path / "out", 5, **QUIET, **options)
    data = Interactions.read(path, **options)
    oracle.same(oracle.of_table(parts(tmp_path / "out")), oracle.lists(model, events, 5, **options))
    if not options:
        same(tmp_path / "out", at_once(model, data, 5))
    assert names(tmp_path / "out") == ["_manifest.json", *(f"part-0000{n}.parquet" for n in range(6))]
    assert (result.users, result.recommendations) == (320, 5 * 320)
    assert (result.parts, result.made) == (6, 6)
    strong = pa.compute.greater_equal(events["value"], options.get("min_value", 0))
    kept = events.filter(pa.compute.and_(strong, pa.compute.greater(events["value"], 0))) if options else events
    assert result.unknown.events == pa.compute.sum(pa.compute.starts_with(kept["item"], "new")).as_py()
    assert result.unknown.examples == ("new 0", "new 1", "new 2")


@pytest.mark.usefixtures("small_blocks")
def test_values_reach_the_model(events, path, tmp_path):
    """Sums of repeated events among them."""
    known = events.filter(pa.compute.starts_with(events["item"], "film"))
    model = EASE(l2=20.0).fit(Interactions.from_frame(known, value="value", values="raw"))
    recommend_to_parquet(model, path, tmp_path / "out", 5, value="value", **QUIET)
    oracle.same(oracle.of_table(parts(tmp_path / "out")), oracle.lists(model, events, 5, value="value"))


@pytest.mark.usefixtures("small_blocks")
def test_a_row_for_each_user_with_a_list_of_items(model, path, events, tmp_path):
    lists = pl.from_arrow(events).group_by("user").agg("item").sample(fraction=1, shuffle=True, seed=1)
    halves = pl.concat([lists[:5].with_columns(pl.col("item").list.head(2)), lists.with_columns(pl.col("item"))])
    no_events = pl.DataFrame({"user": ["zz nobody"], "item": [[]]}, schema=halves.schema)
    pl.concat([halves, no_events]).write_parquet(tmp_path / "lists.parquet")
    result = recommend_to_parquet(model, tmp_path / "lists.parquet", tmp_path / "out", 5, **QUIET)
    expected = at_once(model, Interactions.read(path), 5)
    empty = model.recommend(0, sparse.csr_matrix((1, len(model.item_ids_))), N=5)
    expected = pa.concat_tables([expected, ranking_table(["zz nobody"], *empty, model.item_ids_)])
    assert result.users == 321
    same(tmp_path / "out", expected)


@pytest.mark.usefixtures("small_blocks")
def test_numbers_titles_folders_and_columns_of_any_name(tmp_path):
    cells = make_sample(100, 60).interactions.matrix.tocoo()
    data = Interactions.from_frame(
        pa.table({"user": cells.row * 1000, "item": cells.col}),
        titles={number: f"The {number}" for number in range(60)},
    )
    model = Popularity().fit(data)
    folder = tmp_path / "in"
    folder.mkdir()
    table = pa.table({'wh"o': (cells.row * 1000).astype(np.int32), "the.item": cells.col.astype(str)})
    for number, start in enumerate(range(0, len(table), 700)):
        pq.write_table(table[start : start + 700], folder / f"{number}.parquet")
    (folder / "_SUCCESS").touch()
    recommend_to_parquet(model, folder, tmp_path / "out", 3, user='wh"o', item="the.item", **QUIET)
    expected = at_once(model, data, 3)
    same(tmp_path / "out", expected.set_column(0, "user", expected["user"].cast(pa.int32())))
    assert "title" in expected.column_names


def test_parts_are_read_as_one_table_by_others(model, path, tmp_path):
    recommend_to_parquet(model, path, tmp_path / "out", 5, **QUIET)
    read = pd.read_parquet(tmp_path / "out")
    assert len(read) == 5 * 320
    assert pl.read_parquet(tmp_path / "out" / "*.parquet").shape == read.shape


def test_a_network_s_lists_are_the_same_twice(events, path, tmp_path):
    known = events.filter(pa.compute.starts_with(events["item"], "film"))
    model = MultDAE(epochs=2, latent_dim=8, random_state=0).fit(Interactions.from_frame(known), show_progress=False)
    for name in ("one", "two"):
        recommend_to_parquet(model, path, tmp_path / name, 5, show_progress=False, users_per_part=300)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    same(tmp_path / "one", at_once(model, Interactions.read(path), 5))


def test_how_duckdb_is_set_up(model, path, tmp_path, monkeypatch):
    """It would draw progress on standard output from two seconds on, terminal or not."""
    import duckdb

    connect, made, found = duckdb.connect, [], {}
    monkeypatch.setattr("duckdb.connect", lambda *a, **k: made.append(connect(*a, **k)) or made[-1])

    def ask(part):
        for name in ("enable_progress_bar", "memory_limit", "temp_directory"):
            found[name] = made[0].sql(f"SELECT current_setting('{name}')").fetchall()[0][0]

    recommend_to_parquet(model, path, tmp_path / "out", 5, show_progress=False, memory_mib=512, on_part=ask)
    scratch = str(tmp_path / "out" / SCRATCH / "sort")
    assert found == {"enable_progress_bar": False, "memory_limit": "512.0 MiB", "temp_directory": scratch}


@pytest.mark.parametrize("kind", ["category", "large_string", "uint64"])
def test_ids_of_any_width(kind, model, events, path, tmp_path):
    frame = pl.from_arrow(events)
    if kind == "uint64":
        number = pl.col("user").str.slice(5).cast(pl.UInt64) + 2**63
        table = frame.with_columns(number.alias("user")).to_arrow()
    elif kind == "category":
        table = pa.Table.from_pandas(events.to_pandas().astype({"user": "category", "item": "category"}))
    else:
        table = events.cast(pa.schema([("user", pa.large_string()), ("item", pa.large_string()), ("value", "f4")]))
    pq.write_table(table, tmp_path / "events.parquet")
    with pytest.raises(StopError):
        recommend_to_parquet(model, tmp_path / "events.parquet", tmp_path / "out", 5, on_part=stop_at(2), **QUIET)
    recommend_to_parquet(model, tmp_path / "events.parquet", tmp_path / "out", 5, **QUIET)
    same(tmp_path / "out", at_once(model, Interactions.read(tmp_path / "events.parquet"), 5))


@pytest.mark.parametrize("sizes", [[3], [1], [2, 5], [100]])
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_users_are_never_cut(sizes, batch):
    users = np.repeat(np.arange(17), np.random.default_rng(0).integers(1, 9, 17))
    table = pa.table({"user": users, "item": np.arange(len(users))})
    blocks = list(by_users(iter(table.to_batches(max_chunksize=batch)), sizes * 20))
    assert pa.concat_tables(blocks).equals(table)
    counts = [len(block["user"].unique()) for block in blocks]
    assert counts[:-1] == (sizes * 20)[: len(counts) - 1]
    assert 1 <= counts[-1] <= (sizes * 20)[len(counts) - 1]
    assert list(by_users(iter([]), [3])) == []


class StopError(Exception):
    pass


def stop_at(number):
    def on_part(part):
        if part.file == f"part-{number:05}.parquet":
            raise StopError

    return on_part


# stopped and resumed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 3, 5])
def test_a_run_that_stopped_is_gone_on_with(number, model, path, tmp_path, unbroken):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        recommend_to_parquet(model, path, out, 5, on_part=stop_at(number), **QUIET)
    assert len(list(out.glob("part-*"))) == number + 1
    assert not (out / SCRATCH).exists()
    made = []
    result = recommend_to_parquet(model, path, out, 5, on_part=lambda part: made.append(part.file), **QUIET)
    assert made == [f"part-{later:05}.parquet" for later in range(number + 1, 6)]
    assert contents(out) == unbroken
    assert result == BulkResult(320, 1600, 6, 5 - number, result.unknown)
    again = recommend_to_parquet(model, path, out, 5, on_part=stop_at(0), **QUIET)
    assert (again.made, again.users, again.unknown) == (0, 320, result.unknown)
    assert contents(out) == unbroken


KILLED = """
import os, pathlib, signal, sys
import recvae
from recvae.serving.batch import recommend_to_parquet
replace = pathlib.Path.replace

def last(self, target):  # in the middle of a part: the file is written, and not in its place
    if pathlib.Path(target).name == "part-00002.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

pathlib.Path.replace = last
recommend_to_parquet(recvae.load(sys.argv[1]), sys.argv[2], sys.argv[3], 5, show_progress=False, users_per_part=60)
"""


def test_a_run_that_was_killed_is_gone_on_with_and_cleaned_up(model, path, tmp_path, unbroken):
    out, file = tmp_path / "out", tmp_path / "model"
    model.save(file)
    process = start_process(KILLED, file, path, out)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    left = names(out)
    assert SCRATCH in left
    assert any(name.startswith(".part-00002") for name in left)
    assert "part-00001.parquet" in left
    assert "part-00002.parquet" not in left
    (out / SCRATCH / "sort").mkdir(exist_ok=True)  # as if it had sorted on disk
    (out / SCRATCH / "sort" / "left").write_bytes(b"over")
    result = recommend_to_parquet(model, path, out, 5, **QUIET)
    assert result.made == 4
    assert contents(out) == unbroken


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_part_is_made_again_and_the_others_stay(damage, model, path, tmp_path, unbroken):
    out = tmp_path / "out"
    recommend_to_parquet(model, path, out, 5, **QUIET)
    part = out / "part-00002.parquet"
    content = part.read_bytes()
    part.unlink()
    if damage != "gone":
        part.write_bytes(content[:-9] if damage == "cut" else b"x" + content[1:])
    before = {file: file.stat().st_mtime_ns for file in out.glob("part-*") if file != part}
    made = []
    recommend_to_parquet(model, path, out, 5, on_part=lambda part: made.append(part.file), **QUIET)
    assert made == ["part-00002.parquet"]
    assert contents(out) == unbroken
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_another_setting_model_or_input_in_the_same_folder_is_refused(model, path, events, tmp_path, unbroken):
    out = tmp_path / "out"
    recommend_to_parquet(model, path, out, 5, **QUIET)
    other = EASE(l2=21.0).fit(Interactions.from_frame(events))
    moved = tmp_path / "events.parquet"
    pq.write_table(events, moved)

    def refused(words, *arguments, **options):
        with pytest.raises(InvalidParameterError, match=words):
            recommend_to_parquet(*arguments, **QUIET | options)
        assert contents(out) == unbroken

    refused("the N with which .* was begun, got 6 instead of 5; take another folder", model, path, out, 6)
    refused("the users_per_part with which .* got 61 instead of 60", model, path, out, 5, users_per_part=61)
    refused("the columns with which", model, path, out, 5, value="value")
    refused("the model with which .* EASE, checksum", other, path, out, 5)
    refused("the input with which .* other files or changed ones", model, moved, out, 5)
    os.utime(path, ns=(1, path.stat().st_mtime_ns))  # read, and not changed
    assert recommend_to_parquet(model, path, out, 5, **QUIET).made == 0


def test_a_second_run_at_the_same_time_is_refused(model, path, tmp_path, unbroken):
    out = tmp_path / "out"

    def second(part):
        if part.file == "part-00001.parquet":
            with pytest.raises(OutputError, match="for this run alone, but another one is writing to it"):
                recommend_to_parquet(model, path, out, 5, **QUIET)

    recommend_to_parquet(model, path, out, 5, on_part=second, **QUIET)
    assert contents(out) == unbroken


def test_a_folder_with_something_else_in_it_is_refused(model, path, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"an empty folder for the parts.* with thesis\.txt in it"):
        recommend_to_parquet(model, path, tmp_path / "out", 5, **QUIET)
    assert list(contents(tmp_path / "out")) == ["thesis.txt"]
    for hidden in (".scratch", ".part-old", ".git"):
        place = tmp_path / f"project{hidden}" / hidden
        place.mkdir(parents=True)
        (place / "thesis.txt").write_text("mine")
        with pytest.raises(OutputError, match="an empty folder for the parts"):
            recommend_to_parquet(model, path, place.parent, 5, **QUIET)
        assert (place / "thesis.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="which is a file"):
        recommend_to_parquet(model, path, tmp_path / "out" / "thesis.txt", 5, **QUIET)
    with pytest.raises(OutputError, match="Expected a file that can be written"):
        recommend_to_parquet(model, path, "/proc/nowhere", 5, **QUIET)
    (tmp_path / "out" / "_manifest.json").write_text("{}")
    with pytest.raises(InvalidDataError, match=r"_manifest\.json is damaged .* delete the folder to begin again"):
        recommend_to_parquet(model, path, tmp_path / "out", 5, **QUIET)


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("file", "../events.parquet"),
        ("file", "part-00002.parquet"),
        ("users", -1),
        ("users", True),
        ("rows", 1.5),
        ("bytes", 10**400),
        ("sha256", "x"),
        ("first", None),
        ("last", 7),
        ("last", "\ud800"),
        ("examples", [1.5]),
        ("unknown", "x"),
    ],
)
def test_what_a_manifest_may_not_say(name, odd, model, path, tmp_path, unbroken):
    """With a checksum that fits, or without one, as older versions wrote them."""
    out = tmp_path / "out"
    out.mkdir()
    for file, content in unbroken.items():
        (out / file).write_bytes(content)
    manifest = json.loads(unbroken["_manifest.json"])
    del manifest["sha256"]
    manifest["parts"][1][name] = odd
    for more in ({}, {"sha256": _checksum(manifest)}):
        (out / "_manifest.json").write_text(json.dumps(manifest | more))
        with pytest.raises(InvalidDataError, match=r"_manifest\.json is damaged .* delete the folder") as said:
            recommend_to_parquet(model, path, out, 5, **QUIET)
        assert "\n" not in str(said.value)


def test_a_link_in_the_output_is_not_written_through(model, path, tmp_path, unbroken):
    out, mine = tmp_path / "out", tmp_path / "mine.parquet"
    recommend_to_parquet(model, path, out, 5, **QUIET)
    (out / "part-00002.parquet").unlink()
    mine.write_text("mine")
    (out / "part-00002.parquet").symlink_to(mine)
    with pytest.raises(OutputError, match="which is a link to something else"):
        recommend_to_parquet(model, path, out, 5, **QUIET)
    assert mine.read_text() == "mine"


def test_new_folders_go_where_nothing_is_written(model, path, tmp_path):
    with pytest.raises(InvalidDataError, match="on some of the 60 items"):
        recommend_to_parquet(model, path, tmp_path / "a" / "b", 5, user="item", item="user", **QUIET)
    assert names(tmp_path) == []


def test_names_are_no_patterns_and_folders_are_columns(model, events, path, tmp_path):
    for name, rows in (("in1", events[:50]), ("in[1]", events)):
        folder = tmp_path / name / "Item=x"
        folder.mkdir(parents=True)
        pq.write_table(rows.append_column("ITEM", rows["user"]), folder / f"{name}.parquet")
    recommend_to_parquet(model, tmp_path / "in[1]", tmp_path / "out", 5, **QUIET)
    same(tmp_path / "out", at_once(model, Interactions.read(path), 5))


# what cannot be used -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"user": ["a", None], "item": ["film 1"] * 2}, {}, "every row of 'user', got none in 1 of 2 rows"),
        ({"user": ["a"] * 3, "item": ["film 1", None, None]}, {}, "every row of 'item', got none in 2 of 3 rows"),
        ({"user": ["a"], "item": [["film 1", None]]}, {}, "every row of 'item', got none in 1 of 1 rows"),
        ({"user": ["a", "b"], "item": [["film 1"], None]}, {}, "every row of 'item', got none in 1 of 2 rows"),
        ({"user": ["a"], "item": ["film 1"], "v": [float("nan")]}, {"value": "v"}, "Expected finite values"),
        ({"user": ["a"] * 2, "item": ["film 1"] * 2, "v": [-1, 4]}, {"value": "v"}, "values of zero or more, got -1"),
        ({"user": ["a"] * 2, "item": ["film 1"] * 2, "v": [None, 4]}, {"value": "v"}, "every row of 'v'"),
        (
            {"user": ["a"] * 2, "item": ["film 1"] * 2, "v": [float("nan"), 4]},
            {"value": "v", "min_value": 3},
            "Expected finite values",
        ),
        (
            {"user": ["a"], "item": ["film 1"], "v": [2]},
            {"value": "v", "min_value": 3},
            "a value of more than 0 and at least 3, got none",
        ),
        ({"user": ["a"], "item": ["film 1"], "v": [0]}, {"value": "v"}, "a value of more than 0, got none"),
        ({"user": ["a"], "item": ["film 1"], "v": ["x"]}, {"value": "v"}, "Expected numbers in column 'v', got string"),
        ({"user": [1.5], "item": ["film 1"]}, {}, "Expected integers or strings as ids in 'user', got double"),
        ({"user": ["a"], "item": [[1.5]]}, {}, "Expected integers or strings as ids in 'item', got double"),
        ({"user": ["a"], "thing": ["film 1"]}, {}, "Expected one column 'item', but it is missing"),
        (
            {"user": ["a"], "item": ["x"]},
            {},
            r"on some of the 60 items, such as 'film 0', got none: .* such as \['x'\]",
        ),
        ({"user": ["a"], "item": [["x"]]}, {}, r"on some of the 60 items"),
        ({"user": pa.array([], pa.string()), "item": pa.array([], pa.string())}, {}, "at least one event, got none"),
    ],
)
def test_bad_events_are_a_sentence_and_nothing_is_written(columns, options, message, model, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(InvalidDataError, match=message):
        recommend_to_parquet(model, tmp_path / "bad.parquet", tmp_path / "out", **QUIET, **options)
    assert names(tmp_path) == ["bad.parquet"]


def test_bad_files_are_a_sentence(model, path, events, tmp_path):
    def refused(error, words, source):
        with pytest.raises(error, match=words):
            recommend_to_parquet(model, source, tmp_path / "out", **QUIET)
        assert not (tmp_path / "out").exists()

    refused(DataNotFoundError, r"nowhere\.parquet", tmp_path / "nowhere.parquet")
    refused(InvalidDataError, r"Expected a Parquet file \(\.parquet\) or a folder of such", tmp_path / "events.csv")
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(events, folder / "1.parquet")
    pq.write_table(pa.table({"user": [1], "item": ["film 1"]}), folder / "2.parquet")
    refused(InvalidDataError, r"Expected 'user' to be of one type in all files, got int64 in .*2\.parquet", folder)
    (folder / "2.parquet").write_bytes(path.read_bytes()[:-9])
    refused(InvalidDataError, r"2\.parquet", folder)
    content = bytearray(path.read_bytes())
    content[4:4000] = bytes(3996)  # the end, which tells what is where, is good
    (folder / "2.parquet").write_bytes(content)
    refused(InvalidDataError, "The events at .* cannot be read", folder)


def test_bad_requests_are_a_sentence(model, path, tmp_path, monkeypatch):
    def refused(error, words, model=model, source=path, out=tmp_path / "out", **options):
        with pytest.raises(error, match=words):
            recommend_to_parquet(model, source, out, **QUIET | options)
        assert names(tmp_path) == []

    refused(InvalidParameterError, "N to be an integer of at least 1, got 0", N=0)
    refused(InvalidParameterError, "users_per_part to be an integer of at least 1", users_per_part=0)
    refused(InvalidParameterError, "memory_mib to be an integer of at least 64", memory_mib=1)
    refused(InvalidParameterError, "the column of values for min_value=3", min_value=3)
    refused(InvalidParameterError, "a folder for the parts outside of", source=path.parent, out=path.parent / "out")
    refused(NotFittedError, "call fit first", model=EASE())
    bare = EASE().fit(sparse.csr_matrix(np.eye(60, dtype=np.float32)))
    refused(InvalidDataError, "knows raw ids", model=bare)
    monkeypatch.setattr("recvae.serving.batch.run.LEAST_MIB", 1)
    refused(NotEnoughMemoryError, r"Expected 1 MiB of memory.* give it more \(memory_mib\)", memory_mib=1)
    for library in ("duckdb", "filelock"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, library, None)
            refused(MissingDependencyError, r'run: pip install "recvae\[large\]"')


def test_a_model_of_known_users_is_refused(events, path, tmp_path):
    pytest.importorskip("implicit")
    known = BPR(factors=4, iterations=1, random_state=0).fit(Interactions.from_frame(events), show_progress=False)
    with pytest.raises(UnknownUsersError, match="BPR has factors for the users it was trained on only"):
        recommend_to_parquet(known, path, tmp_path / "out", 5, **QUIET)
    assert names(tmp_path) == []


# the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(model, path, tmp_path):
    model.save(tmp_path / "model")
    return ["recommend", str(tmp_path / "model"), "--input", str(path), "-N", "5"]


def test_the_command_makes_parts_in_a_folder(command, model, path, tmp_path, capsys, unbroken):
    out = tmp_path / "new" / "top5"
    assert main([*command, "--out", f"{out}/", "--users-per-part", "60"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "events are on items that the model does not know, such as 'new 0', 'new 1', 'new 2'" in captured.err
    assert f"1,600 recommendations for 320 users are in {out}: 6 parts, 6 of them made now" in captured.err
    assert contents(out) == unbroken
    assert main([*command, "--out", str(out), "--users-per-part", "60"]) == 0  # it is a folder
    assert "6 parts, 0 of them made now" in capsys.readouterr().err
    strong = tmp_path / "strong"
    assert main([*command, "--out", f"{strong}/", "--value", "value", "--min-value", "3"]) == 0
    expected = oracle.lists(model, pq.read_table(path), 5, value="value", min_value=3)
    oracle.same(oracle.of_table(parts(strong)), expected)
    assert json.loads((strong / "_manifest.json").read_text())["settings"]["users_per_part"] == 50_000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "OUT/", "--min-user", "3"], "neither --dataset nor --time or --min-user"),
        (["--out", "OUT/", "--time", "when"], "neither --dataset nor --time or --min-user"),
        (["--out", "top.csv", "--users-per-part", "60"], "Expected --users-per-part with a folder only"),
        (["--out", "OUT/", "--users-per-part", "0"], "users_per_part to be an integer of at least 1, got 0"),
        (["--out", "OUT/", "--item", "film"], "Expected one column 'item'|Expected one column 'film'"),
        (["--out", "OUT/", "--min-value", "3"], "the column of values for min_value"),
    ],
)
def test_bad_commands_are_one_sentence_and_leave_nothing(more, message, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = names(tmp_path)
    assert main([*command, *more]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert any(words in captured.err for words in message.split("|"))
    assert names(tmp_path) == before


def test_a_data_set_is_not_streamed(command, tmp_path, capsys):
    assert main([*command[:2], "--dataset", "sample", "--out", f"{tmp_path}/out/"]) == 2
    assert "Expected --input, a Parquet file or a folder of such" in capsys.readouterr().err
    assert not Path(tmp_path / "out").exists()
