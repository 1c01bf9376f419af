"""Data sets by name, from archives that the tests make and serve themselves."""

import functools
import hashlib
import http.server
import io
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from msgspec.structs import replace

import recvae
from recvae import load_card, load_dataset, load_split, temporal_split
from recvae.datasets import card as cards
from recvae.datasets import download
from recvae.datasets import load as datasets
from recvae.datasets import parsers as layouts
from recvae.datasets.card import known_cards, read_card
from recvae.datasets.download import fetch
from recvae.datasets.table_spec import LAYOUT_COLUMNS
from recvae.errors import DataNotFoundError, InvalidDataError, InvalidParameterError, OutputError, UnknownNameError

FILES = {
    "ml-1m": {
        "ratings.dat": "7::10::5::978\n7::20::3::978\n3::10::4::978\n3::30::5::978\n",
        "movies.dat": "10::Amélie: A Film (2001)::Comedy|Romance\n20::Big::Comedy\n30::Up::Drama\n".encode("latin-1"),
    },
    "ml-100k": {
        "u.data": "7\t10\t5\t978\n7\t20\t3\t978\n3\t10\t4\t978\n3\t30\t5\t978\n",
        "u.item": "".join(
            f"{item}|{title}|01-Jan-1995||http://x|{'|'.join(flags)}\n"
            for item, title, flags in [
                (10, 'The "Film"', "0000010000000010000"),
                (20, "Big", "0000010000000000000"),
                (30, "Up", "0000000010000000000"),
            ]
        ),
    },
    "ml-latest-small": {
        "ratings.csv": "userId,movieId,rating,timestamp\n7,10,5.0,978\n7,20,3.5,978\n3,10,4.0,978\n3,30,4.5,978\n",
        "movies.csv": 'movieId,title,genres\n10,"Film, The (2001)",Comedy|Romance\n20,Big,Comedy\n30,Up,Drama\n',
    },
}


def write(folder: Path, files: dict) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def small_cards(monkeypatch):
    """Cards as they are, but expecting the tests' few events."""
    small = replace(load_card("ml-1m").expected, users=2, items=3, events=4)
    protocol = replace(load_card("ml-1m").protocol, min_user=1)
    monkeypatch.setattr(datasets, "load_card", lambda name: replace(load_card(name), expected=small, protocol=protocol))


@pytest.mark.parametrize("name", FILES)
def test_each_layout(name, tmp_path, small_cards):
    write(tmp_path / name, FILES[name])
    data = load_dataset(name, tmp_path)
    assert data.user_ids.tolist() == [3, 7]
    assert data.item_ids.tolist() == [10, 30]  # 20 was rated below four
    assert data.matrix.toarray().tolist() == [[4, 5 if name != "ml-latest-small" else 4.5], [5, 0]]
    assert data.titles[1] == "Up"
    assert data.genres.tolist() == ["Comedy|Romance", "Drama"] if name != "ml-100k" else data.genres[1] == "Drama"
    everything = load_dataset(name, tmp_path, min_value=0)
    assert everything.item_ids.tolist() == [10, 20, 30]
    assert load_dataset(name, tmp_path, min_user=2).user_ids.tolist() == [3]


def test_times_are_read(tmp_path, small_cards):
    write(tmp_path / "ml-1m", FILES["ml-1m"])
    assert (load_dataset("ml-1m", tmp_path).times.data == 978).all()


def small_card(monkeypatch, name, counts, **protocol):
    card = load_card(name)
    expected = recvae.datasets.card.Expected(*counts)
    small = replace(card, expected=expected, protocol=replace(card.protocol, **protocol))
    monkeypatch.setattr(datasets, "load_card", lambda name: small)


def test_a_data_set_with_lists_of_items_and_a_test_of_its_own(tmp_path, monkeypatch):
    train = "".join(f"{user} 10 11 12 13 14\n" for user in (0, 2)) + "1 \n\n"
    write(tmp_path / "gowalla", {"train.txt": train, "test.txt": "0 20\n2 15 20\n1 10\n"})
    small_card(monkeypatch, "gowalla", (3, 7, 14), valid_share=0.25)
    data = load_dataset("gowalla", tmp_path)
    assert data.matrix.toarray().tolist() == [[1, 1, 1, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]
    (tmp_path / "gowalla" / "train.txt").write_text(train.replace("2 10", "2 20 10"))
    (tmp_path / "gowalla" / "test.txt").write_text("0 20\n2 15 30\n1 10\n")
    small_card(monkeypatch, "gowalla", (3, 8, 15), valid_share=0.25)
    split = load_split("gowalla", tmp_path)
    assert split.items.tolist() == [10, 11, 12, 13, 14, 20]  # 15 and 30 are not in training
    assert split.refit.user_ids.tolist() == [0, 2]
    assert split.test.users.tolist() == [0]
    assert split.test.held_out.indices.tolist() == [5]
    assert split.test.dropped == 2
    assert split.valid.held_out.nnz == 2
    other = load_split("gowalla", tmp_path, split="per-user", test_share=0.4, valid_share=0.4)
    assert len(other.test.users) == 2  # the third has but one event


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n1\t5\t6\n", "line 2: another delimiter than ' '"),
        ("0 1  2\n", "line 1: an empty or spaced id"),
        (" 1 2\n", "line 1: an empty or spaced id"),
        ("0 1 2\t3\n", "line 1: another delimiter than ' '"),
        (b"0 1 \xff\n", "line 1: no text in UTF-8"),
    ],
)
def test_broken_lists_of_items_are_named(text, message, tmp_path):
    write(tmp_path / "gowalla", {"train.txt": text, "test.txt": "0 1\n"})
    with pytest.raises(InvalidDataError, match=message):
        load_dataset("gowalla", tmp_path)


def test_a_mark_at_the_beginning_is_no_id(tmp_path):
    (tmp_path / "events.txt").write_bytes(b"\xef\xbb\xbf0 1 2\n3 1\n")
    own = 'name = "x"\ntitle = "x"\npath = "events.txt"\n[events]\nlayout = "adjacency"\ndelimiter = " "\n'
    (tmp_path / "x.toml").write_text(own + "[protocol]\nheldout_users = 1\nmin_user = 1")
    assert load_dataset(str(tmp_path / "x.toml")).user_ids.tolist() == [0, 3]


GIVEN = """
name = "x"
title = "x"
path = "events.csv"
[events]
columns = ["user", "item", "value"]
[test]
file = "test.csv"
columns = ["user", "item", "value"]
[protocol]
split = "given"
valid_share = 0.25
min_user = 1
min_item = 2
min_value = 2
"""


def test_a_given_test_loses_weak_events_and_nothing_else(tmp_path):
    (tmp_path / "x.toml").write_text(GIVEN)
    (tmp_path / "events.csv").write_text("".join(f"{u},{i},3\n" for u in "ab" for i in (1, 2, 3, 4)) + "c,1,3\nc,5,3\n")
    (tmp_path / "test.csv").write_text("c,2,3\nc,3,1\n")
    test = load_split(str(tmp_path / "x.toml")).test
    assert (test.users.tolist(), test.held_out.indices.tolist()) == (["c"], [1])
    assert load_split(str(tmp_path / "x.toml"), min_value=1).test.held_out.indices.tolist() == [1, 2]
    # ids of text in one file and of numbers in the other are the same ids
    (tmp_path / "test.csv").write_text("c,x,3\nc,2,3\n")
    assert load_split(str(tmp_path / "x.toml")).test.held_out.indices.tolist() == [1]
    assert set(load_dataset(str(tmp_path / "x.toml"), min_value=0).item_ids) == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[test]\n", "[test]\nlayout = 3\n", "test.layout = 3: Expected `str`, got `int`"),
        ('file = "test.csv"\n', "", r"\[test\] has no file"),
        ('"test.csv"', '"/test.csv"', "no path below the folder"),
        ('["user", "item", "value"]\n[test]', '["user", "value"]\n[test]', r"\[events\] columns = \[.*\] lacks item"),
        ("min_user = 1", "min_user = true", "protocol.min_user = True: Expected `int`, got `bool`"),
        ("min_user = 1", "last = 0", "Expected valid_share, seed for the given split, got last"),
        ("min_user = 1", 'metrics = ["foo@3"]', "no metric called 'foo'"),
        ("min_user = 1", "metrics = []", "metric"),
        ("min_user = 1", 'heldout_users = "x"', r"protocol.heldout_users = 'x': Expected `int \| null`, got `str`"),
        ("min_user = 1", 'min_user = 1\n[published]\nx = "y"', r"published\[\.\.\.\]: Expected `table`, got `str`"),
        ('split = "given"', 'split = "strong"', "for the strong split, got valid_share"),
        ('path = "events.csv"\n', 'path = "events.csv"\nitems = 3\n', r"items = 3: Expected `table \| null`"),
        ("[test]\n", '[test]\nquote = "<>"\n', "test.quote = '<>': Expected `str` of length <= 1"),
        ("[test]\n", '[test]\ndecimal = ";"\n', "Expected decimal as . or , got ';'"),
    ],
)  # fmt: skip
def test_cards_that_cannot_be_meant(old, new, message, tmp_path):
    assert old in GIVEN
    (tmp_path / "x.toml").write_text(GIVEN.replace(old, new, 1))
    (tmp_path / "events.csv").write_text("1,1,3\n")
    (tmp_path / "test.csv").write_text("1,2,3\n")
    with pytest.raises((InvalidDataError, InvalidParameterError), match=message):
        load_split(str(tmp_path / "x.toml"))


def test_options_are_checked_before_anything_is_read(tmp_path):
    for options, message in (({"last": 3}, "got last"), ({"heldout_users": 0}, "at least 1, got 0")):
        with pytest.raises(InvalidParameterError, match=message):
            load_split("netflix", tmp_path, **options)


def test_a_date_in_a_card_is_a_date(tmp_path):
    text = GIVEN.split("[test]")[0].replace('"value"', '"time"') + "[protocol]\nmin_user = 1\n"
    (tmp_path / "x.toml").write_text(text + 'split = "temporal"\ntest_start = 2018-01-03\nvalid_start = "2018-01-02"')
    (tmp_path / "events.csv").write_text(
        "".join(f"1,{i},2018-01-0{i}\n" for i in (1, 2, 3, 4)) + "1,5,2018-01-01\n2,3,2018-01-01\n"
    )
    with pytest.raises(InvalidParameterError, match="held out for validation, got none"):
        load_split(str(tmp_path / "x.toml"), valid_start="2018-01-02T12:00")
    (tmp_path / "events.csv").write_text(
        "".join(f"{u},{i},2018-01-0{1 + (i + u) % 3}\n" for u in (1, 2) for i in range(6))
    )
    assert load_split(str(tmp_path / "x.toml")).test.held_out.nnz > 0
    assert load_split(str(tmp_path / "x.toml"), test_share=0.3).test.held_out.nnz > 0


def test_patterns_of_files_need_one_kind_of_column(tmp_path):
    card = (
        GIVEN.split("[test]")[0]
        .replace("[events]", '[events]\nfile = "part_*.csv"')
        .replace('path = "events.csv"\n', "")
    )
    folder = write(tmp_path / "x", {"part_1.csv": "1,2,3\n", "part_2.csv": "1,4,3.5\n"})
    (tmp_path / "x.toml").write_text(card)
    table = read_card(tmp_path / "x.toml").events if "protocol" in card else None
    assert table is None
    table = recvae.datasets.parsers.TableSpec(columns=["user", "item", "value"], file="part_*.csv")
    assert layouts.read_events(folder, table).table["value"].to_pylist() == [3, 3.5]
    (folder / "part_2.csv").write_text("1,x,good\n")
    with pytest.raises(
        InvalidDataError,
        match=r"part_2\.csv cannot be read: line 1: Expected numbers in column 'value', got string: 'good'",
    ):
        layouts.read_events(folder, table)
    (folder / "part_2.csv").write_text("1,x,4\n")
    assert layouts.read_events(folder, table).table["item"].to_pylist() == ["2", "x"]


def test_quotes_can_be_text(tmp_path):
    (tmp_path / "a.tsv").write_text('ann\t1\n"dan\t4\n')
    table = recvae.datasets.parsers.TableSpec(columns=["user", "item"], file="a.tsv", delimiter="\t", quoted=False)
    assert layouts.read_events(tmp_path, table).table["user"].to_pylist() == ["ann", '"dan']


def test_blocks_and_titles_with_commas(tmp_path, monkeypatch):
    parts = {
        "combined_data_1.txt": "1:\n7,3,2005-09-06\n8,5,2005-09-07\n2:\n3:\n",
        "combined_data_2.txt": "4:\r\n7,4,2005-09-08\r\n",
    }
    titles = b"1,2003,Dinosaur Planet\n2,2004,Nobody's\n3,NULL,Am\xe9lie, Again\n4,1999,Lock, Stock, and More\n"
    folder = write(tmp_path / "netflix", parts | {"movie_titles.csv": titles})
    small_card(monkeypatch, "netflix", (2, 2, 3), min_value=None, min_user=1)
    data = load_dataset("netflix", tmp_path)
    assert data.user_ids.tolist() == [7, 8]
    assert data.item_ids.tolist() == [1, 4]
    assert data.matrix.toarray().tolist() == [[3, 4], [5, 0]]
    assert data.titles.tolist() == ["Dinosaur Planet", "Lock, Stock, and More"]
    assert data.times.data.tolist() == [1125964800, 1126137600, 1126051200]
    last = (folder / "combined_data_1.txt").read_text()
    (folder / "combined_data_1.txt").write_text(last + "5:\n\n")
    assert load_dataset("netflix", tmp_path).n_events == 3
    (folder / "combined_data_1.txt").write_text("1:\n\n7,3,2005-09-06\n")
    with pytest.raises(InvalidDataError, match="without empty lines, got 1"):
        load_dataset("netflix", tmp_path)
    for text, message in (
        ("7,3,2005-09-06\n", "to begin with an item, such as '1:'"),
        ("1:\n7,3\n", "cannot be read: line 2: Expected 3 columns, got 2"),
    ):
        (folder / "combined_data_1.txt").write_text(text)
        with pytest.raises(InvalidDataError, match=message):
            load_dataset("netflix", tmp_path)


def test_the_card_says_the_split_and_options_go_on_top(tmp_path):
    split = load_split("sample")
    assert len(split.test.users) + split.test.dropped == load_card("sample").protocol.heldout_users
    assert len(load_split("sample", heldout_users=50).test.users) <= 50
    assert load_split("sample", split="per-user", seed=1, min_user=50).refit is not None
    with pytest.raises(InvalidParameterError, match="another split for sample, whose card gives no test"):
        load_split("sample", split="given")
    with pytest.raises(UnknownNameError, match="no split called 'strange'"):
        load_split("sample", split="strange")
    with pytest.raises(InvalidDataError, match="events with times for a split by time"):
        load_split("sample", split="temporal")


def test_titles_with_accents_quotes_and_colons(tmp_path, small_cards):
    titles = []
    for name in FILES:
        write(tmp_path / name, FILES[name])
        titles.append(load_dataset(name, tmp_path).titles[0])
    assert titles == ["Amélie: A Film (2001)", 'The "Film"', "Film, The (2001)"]


def test_the_home_is_the_argument_then_the_environment_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECVAE_DATA", str(tmp_path / "environment"))
    assert datasets.data_home(tmp_path) == tmp_path
    assert datasets.data_home() == tmp_path / "environment"
    monkeypatch.delenv("RECVAE_DATA")
    assert datasets.data_home().name == "recvae"


def test_the_sample_needs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("RECVAE_DATA", str(tmp_path))
    data = load_dataset("sample")
    expected = load_card("sample").expected
    assert (data.n_users, data.n_items, data.n_events) == (expected.users, expected.items, expected.events)
    assert np.diff(load_dataset("sample", min_user=50).matrix.indptr).min() >= 50
    with pytest.raises(InvalidParameterError, match="no min_value for sample"):
        load_dataset("sample", min_value=4)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_have_neighbours():
    with pytest.raises(UnknownNameError, match=r"no data set called 'ml1m'; did you mean"):
        load_dataset("ml1m")


# damaged files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_noticed(name, tmp_path, small_cards):
    events = load_card(name).events.file
    text = FILES[name][events]
    write(tmp_path / name, FILES[name] | {events: text[: text.rindex("\n", 0, -1) + 1]})
    with pytest.raises(InvalidDataError, match=r"Expected \(2, 3, 4\) users, items and events .*, got \(2, 2, 3\)"):
        load_dataset(name, tmp_path)
    (tmp_path / name / events).write_text(text[:-7])
    with pytest.raises(InvalidDataError, match=r"cannot be read: line [45]: Expected . columns"):
        load_dataset(name, tmp_path)


def test_a_damaged_item_file_is_noticed(tmp_path, small_cards):
    write(tmp_path / "ml-1m", FILES["ml-1m"])
    for text, message in (
        (b"10::Film\n", r"expected 3 columns, got 2 in \['10', 'Film'\]"),
        (b"10::Film::Drama\n20::Film\n", r"line 2: expected 3 columns, got 2"),
    ):
        (tmp_path / "ml-1m" / "movies.dat").write_bytes(text)
        with pytest.raises(InvalidDataError, match=message):
            load_dataset("ml-1m", tmp_path)
    write(tmp_path / "ml-latest-small", FILES["ml-latest-small"] | {"movies.csv": b"movieId,title,genres\n10,\xff,\n"})
    with pytest.raises(InvalidDataError, match="line 2: no text in UTF-8"):
        load_dataset("ml-latest-small", tmp_path)


@pytest.mark.parametrize("missing", ["ratings.dat", "movies.dat"])
def test_a_missing_file_is_named(missing, tmp_path, small_cards):
    write(tmp_path / "ml-1m", FILES["ml-1m"])
    (tmp_path / "ml-1m" / missing).unlink()
    with pytest.raises(DataNotFoundError, match=f"Expected the file {missing} in"):
        load_dataset("ml-1m", tmp_path)


# items and lists of items as people have them -----------------------------------------------------------------------


def own_card(folder, events="", items="", protocol="", **files):
    """A card of files in a folder, which are named by their letters."""
    for name, content in files.items():
        (folder / f"{name}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = f'name = "x"\ntitle = "x"\npath = "ev.txt"\n[events]\n{events}\n'
    text += f'[items]\nfile = "it.txt"\n{items}\n' if items else ""
    (folder / "x.toml").write_text(text + f"[protocol]\nheldout_users = 1\nmin_user = 1\n{protocol}")
    return str(folder / "x.toml")


PAIRS = 'header = true\ncolumns = ["user", "item"]'
TITLES = 'header = true\ncolumns = ["item", "title"]'


@pytest.mark.parametrize(
    ("events", "items", "titles"),
    [
        ("1,0101\n1,202\n2,0101\n2,30X\n", "0101,Alpha\n202,Beta\n30X,Gamma\n", ["Alpha", "Beta", "Gamma"]),
        ("1,101\n1,202\n2,30X\n", "101,Alpha\n202,Beta\n", ["Alpha", "Beta", "30X"]),  # numbers there, text here
        ("1,101\n1,202\n2,303\n", "101,Alpha\n202,Beta\n30X,Gamma\n", ["Alpha", "Beta", "303"]),
        ("1,101.0\n1,202.0\n", "101,Alpha\n202,Beta\n", ["Alpha", "Beta"]),
        ("1,0101\n1,101\n", "101,Alpha\n0101,Zero\n", ["Zero", "Alpha"]),
        ("1,0101\n1,202\n", "101,Alpha\n202,Beta\n", ["0101", "Beta"]),
    ],
)
def test_titles_are_found_by_how_ids_are_written(events, items, titles, tmp_path):
    card = own_card(tmp_path, PAIRS, TITLES, ev="user,item\n" + events, it="item,title\n" + items)
    assert load_dataset(card).titles.tolist() == titles


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\\t", "::"])
def test_titles_in_quotes_at_any_delimiter(delimiter, tmp_path):
    gap = delimiter.replace("\\t", "\t")
    title = f'Up{gap} and "away"'
    quoted = title.replace('"', '""')
    card = own_card(
        tmp_path, PAIRS, f'{TITLES}\ndelimiter = "{delimiter}"', ev="user,item\n1,1\n1,2\n1,3\n",
        it=f'item{gap}title\n1{gap}"{quoted}"\n2{gap}"two\nlines"\n3{gap}5" disc\n',
    )  # fmt: skip
    assert load_dataset(card).titles.tolist() == [title, "two\nlines", '5" disc']
    (tmp_path / "it.txt").write_text(f'item{gap}title\n1{gap}a\n2{gap}"b\n3{gap}c\n')
    with pytest.raises(InvalidDataError, match="line 3: a quote in column 'title' is not closed"):
        load_dataset(card)


def test_items_without_a_title_and_titles_without_an_item_are_counted(tmp_path):
    items = "item,title\n1,One\n1,Another\n,Nothing\nNULL,None\n9,Nine\n"
    data = load_dataset(own_card(tmp_path, PAIRS, TITLES, ev="user,item\n1,1\n1,2\n2,3\n", it=items))
    assert data.titles.tolist() == ["Another", "2", "3"]
    text = data.describe()
    assert "2 of 3 items have no title" in text
    assert "2 rows of the items have no id" in text
    assert "1 rows of the items repeat an id" in text


@pytest.mark.parametrize(
    ("items", "header", "message"),
    [
        ("1,One\n2,Two\n", "true", "line 1: expected names of columns.*set header = false"),
        ("movieId,title\n1,One\n2,Two\n", "false", "line 1: .*set header = true"),
        ("item,title\n1,One\n2,Two,2\n", "true", "line 3: expected 2 columns, got 3"),
        ("item,title\n1,One\n2,\0\n", "true", "line 3: a NUL byte"),
    ],
)
def test_broken_files_of_items_are_named(items, header, message, tmp_path):
    columns = f'header = {header}\ncolumns = ["item", "title"]'
    with pytest.raises(InvalidDataError, match=rf"it\.txt cannot be read: {message}"):
        load_dataset(own_card(tmp_path, PAIRS, columns, ev="user,item\n1,1\n1,2\n", it=items))


LISTS = 'layout = "adjacency"\ndelimiter = " "'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 10 20 30\n2 10 40\n3 20 30 40\n1 50\n2 10 20\n", "line 1: .*the number of items instead of a user"),
        ("2 a b\n1 a\n\n2 a c \n", "the number of items instead of a user, here and in 3 of 3 lines: '2 a b'"),
        ("".join(f"{k % 5 + 1}{' 7' * (k % 5 + 1)}\n" for k in range(30)) + "3 1 2\n", "in 30 of 31 lines"),
        ("9 2 10 20\n8 1 10\n7 3 10 20 30\n", "line 1: .*the number of items after the user"),
        ("user item\n1 10 20\n2 30\n", "line 1: .*set header = true"),
        ("0 1 2\n1 NULL 3\n", "got 'NULL' in line 2"),
        ("0 1 2\n\n1 2\nnan 3\n", "in every row of 'user', got 'nan' in line 4"),
        (b"0 1 2\n1 \0\n", "line 2: a NUL byte"),
    ],
)
def test_lists_of_items_that_say_something_else(text, message, tmp_path):
    with pytest.raises(InvalidDataError, match=message):
        load_dataset(own_card(tmp_path, LISTS, ev=text))


def test_lists_of_items_as_people_have_them(tmp_path):
    for text in ("1 10 20\r\n5 20\r\n", "1 10 20\r5 20", "1 10 20 \n\n5 20 \n7 \n7\n", "1 10\n5 20\n1 20\n"):
        data = load_dataset(own_card(tmp_path, LISTS, ev=text))
        assert (data.user_ids.tolist(), data.item_ids.tolist(), data.n_events) == ([1, 5], [10, 20], 3)
    assert load_dataset(own_card(tmp_path, LISTS + "\nheader = true", ev="u i\n1 10\n")).user_ids.tolist() == [1]
    assert load_dataset(own_card(tmp_path, LISTS.replace('" "', '"::"'), ev="1::10::20\n")).n_events == 2


# of the data sets that may be here: users, items and events with the card's filters, and what the titles are
RECORDED = {
    "ml-100k": ("77b92227e5fabd9b90446d3602c8d04c", "695b87d5994d7dcdebca4aac94525bc6"),
    "ml-latest-small": ("9b797e9a79e13945e1792bf9fa63f140", "9b2bb502df207ef39d857c836f679216"),
    "lastfm-2k": ("8fb0574563c5d51561c003c03fc81b49", "042304bb8987b9c720f7d36342094899"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_data_sets_stay_what_they_are(name):
    if not (datasets.data_home() / name).is_dir():
        pytest.skip(f"{name} is not here")
    data = load_dataset(name)
    titles = hashlib.md5("\n".join(data.titles).encode()).hexdigest()
    assert (data.fingerprint(), titles) == RECORDED[name]


# downloads -----------------------------------------------------------------------------------------------------------


def archive(folder="ml-1m", files=FILES["ml-1m"]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, text in files.items():
            packed.writestr(zipfile.ZipInfo(f"{folder}/{name}"), text)  # without the time of day
    return content.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one body at any address; `cut` ends the connection early that many times."""

    def __init__(self, state, *args):
        self.state = state
        super().__init__(*args)

    def do_GET(self):
        self.state["requests"] += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.state["body"])))
        self.end_headers()
        whole = self.state["requests"] > self.state["cut"]
        self.wfile.write(self.state["body"] if whole else self.state["body"][:50])

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = {"body": archive(), "requests": 0, "cut": 0}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{server.server_port}/ml-1m.zip"
    yield state
    server.shutdown()
    server.server_close()


def card_for(site, checksum=None, folder="ml-1m"):
    checksum = checksum or f"md5:{hashlib.md5(archive()).hexdigest()}"
    card = load_card("ml-1m")
    return replace(card, download=replace(card.download, url=site["url"], checksum=checksum, folder=folder))


def test_a_download_is_unpacked_and_then_used_as_it_is(site, tmp_path):
    home = tmp_path / "not" / "there" / "yet"
    folder = fetch(card_for(site), home)
    assert folder == home / "ml-1m"
    assert sorted(path.name for path in folder.iterdir()) == ["movies.dat", "ratings.dat"]
    assert [path.name for path in home.iterdir()] == ["ml-1m"]
    assert fetch(card_for(site), home) == folder
    assert site["requests"] == 1


def test_a_broken_download_leaves_nothing_and_starts_again(site, tmp_path):
    site["cut"] = 1
    with pytest.raises((DataNotFoundError, InvalidDataError)):
        fetch(card_for(site), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(card_for(site), tmp_path).is_dir()
    assert site["requests"] == 2


def test_a_wrong_checksum_is_refused(site, tmp_path):
    with pytest.raises(InvalidDataError, match=r"Expected sha256 0000 of ml-1m.zip, got .*truncated or another one"):
        fetch(card_for(site, checksum="sha256:0000"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_no_zip_or_of_something_else_is_refused(site, tmp_path):
    with pytest.raises(InvalidDataError, match=r"Expected a folder ml-2m in ml-1m\.zip"):
        fetch(card_for(site, folder="ml-2m"), tmp_path)
    site["body"] = archive()[:-30]
    with pytest.raises(InvalidDataError, match="Expected a whole zip archive"):
        fetch(card_for(site, checksum=f"md5:{hashlib.md5(site['body']).hexdigest()}"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_put_there_by_hand_is_used(site, tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(archive())
    assert fetch(card_for(site), tmp_path) == tmp_path / "ml-1m"
    assert site["requests"] == 0
    assert (tmp_path / "ml-1m.zip").exists()


def test_a_truncated_archive_put_there_by_hand_is_refused_and_kept(site, tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(archive()[:100])
    with pytest.raises(
        InvalidDataError, match=r"got .* \(100 bytes\): the file is truncated or another one; delete it"
    ):
        fetch(card_for(site), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ml-1m.zip"]


def test_without_network_one_sentence_says_what_to_put_where(site, tmp_path):
    card = card_for(site | {"url": "http://127.0.0.1:9/ml-1m.zip"})
    with pytest.raises(DataNotFoundError) as caught:
        fetch(card, tmp_path)
    message = str(caught.value)
    assert "fetch http://127.0.0.1:9/ml-1m.zip on a machine with network and put it in" in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_whoever_comes_second_takes_what_the_first_has_put_there(site, tmp_path, monkeypatch):
    unpack = download._unpack

    def slow(*args):
        write(tmp_path / "ml-1m", FILES["ml-1m"])  # another process was faster
        return unpack(*args)

    monkeypatch.setattr(download, "_unpack", slow)
    assert fetch(card_for(site), tmp_path) == tmp_path / "ml-1m"
    assert [path.name for path in tmp_path.iterdir()] == ["ml-1m"]


def test_a_home_that_cannot_be_made(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataNotFoundError, match=r"nothing can be written there .*; name another folder"):
        fetch(card_for(site), tmp_path / "file" / "home")


# cards ---------------------------------------------------------------------------------------------------------------


def test_all_cards_can_be_read():
    wanted = {"ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small", "sample"}
    assert wanted <= set(known_cards())
    held_out = {name: load_card(name).protocol.heldout_users for name in known_cards()}
    assert (held_out["ml-1m"], held_out["ml-100k"], held_out["ml-latest-small"]) == (600, 100, 60)
    assert {held_out[name] for name in ("ml-10m", "ml-20m", "ml-25m", "ml-32m")} == {10_000}
    for name in wanted - {"sample"}:
        card = load_card(name)
        assert card.name == name
        assert card.protocol.min_value == 4
        assert card.protocol.min_user == 5
        assert card.download.url.endswith(f"{name}.zip")
        assert card.download.checksum.split(":")[0] in ("md5", "sha256")


OWN = """
name = "films"
title = "My films"
path = "events.csv"

[events]
columns = ["", "item", "user", "value"]
header = true

[protocol]
heldout_users = 100
min_value = 4
min_user = 1
"""


def test_a_card_of_one_s_own(tmp_path):
    (tmp_path / "films.toml").write_text(OWN)
    (tmp_path / "events.csv").write_text("when,what,who,stars\n1,007,ann,5\n2,7,ann,4\n3,007,bob,1\n")
    data = load_dataset(str(tmp_path / "films.toml"))
    assert data.user_ids.tolist() == ["ann"]
    assert data.item_ids.tolist() == ["007", "7"]
    (tmp_path / "films.toml").write_text(OWN.replace("header", "heading"))
    with pytest.raises(InvalidDataError, match=r"films\.toml cannot be read: events: there is no key `heading`"):
        load_dataset(str(tmp_path / "films.toml"))
    for old, new in (
        ("header = true", 'header = "no"'),
        ("min_user = 1", 'min_user = "x"'),
        ('["",', "[1,"),
        ("[ev", "[it"),
        ("header = true", 'layout = "rows"'),
        ("min_value = 4", 'split = "temporal"\ntest_start = [4]'),
        ('columns = ["", "item", "user", "value"]\n', ""),
    ):
        (tmp_path / "films.toml").write_text(OWN.replace(old, new))
        with pytest.raises(InvalidDataError):
            load_dataset(str(tmp_path / "films.toml"))
    with pytest.raises(InvalidDataError, match=r"nowhere\.toml cannot be read"):
        load_dataset(str(tmp_path / "nowhere.toml"))


def test_the_card_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text(GIVEN)
    (tmp_path / "events.csv").write_text("".join(f"{u},{i},3\n" for u in "ab" for i in (1, 2, 3, 4)) + "c,1,3\nc,5,3\n")
    (tmp_path / "test.csv").write_text("c,2,3\nc,3,1\n")
    reads = []
    monkeypatch.setattr(cards, "read_card", lambda path: reads.append(path.name) or read_card(path))
    for load in (load_dataset, load_split, datasets.load_unfiltered, datasets.paths_of_dataset):
        load(tmp_path / "x.toml")
        assert reads == ["x.toml"]
        reads.clear()
    for name in ("sample", load_card("sample")):
        load_split(name)
    assert reads == ["sample.toml"] * 2
    assert load_split(read_card(tmp_path / "x.toml")).test.users.tolist() == ["c"]


def test_each_layout_has_a_parser_and_columns():
    assert list(layouts.LAYOUTS) == list(LAYOUT_COLUMNS)


def test_a_layout_is_a_function_and_its_columns(tmp_path, monkeypatch):
    def read_pairs(path, table):
        pairs = [pair.split("-") for pair in path.read_text().split()]
        return pa.table({"user": [user for user, _ in pairs], "item": [int(item) for _, item in pairs]})

    (tmp_path / "films.toml").write_text(OWN.replace("header = true", 'layout = "pairs"').replace("min_value = 4", ""))
    (tmp_path / "events.csv").write_text("ann-7 bob-9")
    with pytest.raises(
        InvalidDataError, match="layout = 'pairs' is none of columns, adjacency, baskets, counted, blocks"
    ):
        load_dataset(tmp_path / "films.toml")
    monkeypatch.setitem(layouts.LAYOUTS, "pairs", read_pairs)
    monkeypatch.setitem(LAYOUT_COLUMNS, "pairs", ("user", "item"))
    data = load_dataset(tmp_path / "films.toml")
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["ann", "bob"], [7, 9])


def test_a_checkout_without_symbolic_links_is_told_what_to_do(tmp_path, monkeypatch):
    for name in ("cards", "nothing"):
        (tmp_path / "cards").write_text("../../datasets")  # as git and zip leave it on a system without links
        monkeypatch.setattr(cards, "_folder", lambda name=name: tmp_path / name)
        with pytest.raises(DataNotFoundError, match=r"a link to datasets/ .*; copy datasets/ to that path"):
            load_dataset("ml-1m")


def test_a_data_set_that_is_only_local(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"cannot be downloaded; put it in .*ml-10m-implicit"):
        load_dataset("ml-10m-implicit", tmp_path)


@pytest.mark.parametrize("text", ["name = ", 'name = "x"', 'surprise = "y"'])
def test_a_broken_card_is_named(text, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InvalidDataError, match=r"The card mine.toml cannot be read"):
        read_card(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('path = "events.csv"', 'path = "../events.csv"'),
        ('path = "events.csv"', 'path = "/etc/passwd"'),
        ('path = "events.csv"', 'path = "link.csv"'),
        ('path = "events.csv"', 'path = "folder/../../events.csv"'),
        ('path = "events.csv"', 'path = "."'),
        ('name = "films"', 'name = "../films"'),
        ('name = "films"', 'name = "/films"'),
        ('name = "films"', 'name = ".."'),
        ('name = "films"', 'name = ""'),
        ('name = "films"', 'name = "a\\u0000b"'),
        ("[events]", '[items]\nfile = "../events.csv"\ncolumns = ["item", "title"]\n[events]'),
        ("[events]", '[items]\nfile = "link.csv"\ncolumns = ["item", "title"]\n[events]'),
        ("[events]", '[test]\nfile = "*/../../*.csv"\ncolumns = ["user", "item"]\n[events]'),
        ("[events]", '[test]\nfile = "a**b"\ncolumns = ["user", "item"]\n[events]'),
        ("[events]", "[events]\nlayout = " + "[" * 10_000),
        ("[events]", '[published]\nx = {"ndcg@100" = 1' + "0" * 400 + "}\n[events]"),
        ("min_user = 1", "min_user = 1" + "0" * 400),
        ("min_user = 1", "min_value = 1" + "0" * 5000),
        ("[events]", "x\x1b[31m = [events]"),
    ],
)
def test_a_card_does_not_lead_out_of_its_folder_and_is_refused_in_one_line(old, new, tmp_path):
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    assert old in OWN
    for folder in (home, tmp_path):
        (folder / "events.csv").write_text("when,what,who,stars\n1,007,ann,5\n2,7,ann,4\n")
    (home / "link.csv").symlink_to(tmp_path / "events.csv")
    (home / "films.toml").write_text(OWN.replace(old, new, 1))
    with pytest.raises((InvalidDataError, InvalidParameterError)) as raised:
        load_dataset(home / "films.toml")
    assert str(raised.value).isprintable()


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path):
    (tmp_path / "films.toml").write_text(OWN.replace('"events.csv"', '"events[1].csv"'))
    for name, user in (("events[1].csv", "ann"), ("events1.csv", "bob")):
        (tmp_path / name).write_text(f"when,what,who,stars\n1,007,{user},5\n")
    assert load_dataset(tmp_path / "films.toml").user_ids.tolist() == ["ann"]


# archives from anywhere ----------------------------------------------------------------------------------------------


def zipped(members: dict, **options) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **options) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return content.getvalue()


def encrypted() -> bytes:
    """One member, whose flag says that it is."""
    content = bytearray(zipped({"a/x": "x"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


def of_another_method() -> bytes:
    content = bytearray(zipped({"a/x": "x"}))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + offset] = 99
    return bytes(content)


def fetch_archive(home: Path, content: bytes, folder: str = "a") -> Path:
    """What comes of an archive that lies in `home`."""
    home.mkdir(exist_ok=True)
    (home / "p.zip").write_bytes(content)
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    card = replace(
        load_card("ml-1m"),
        name="thief",
        download=recvae.datasets.card.Download("http://127.0.0.1:9/p.zip", checksum, folder),
    )
    return fetch(card, home, show_progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({"a/x": b"0" * (32 << 20)}, compression=zipfile.ZIP_DEFLATED), "at most 100 times its [0-9,]+ bytes"),
        (zipped({"../x": "x", "a/x": "x"}), r"files within the archive p.zip, got '\.\./x'"),
        (zipped({"/x": "x", "a/x": "x"}), "files within the archive p.zip, got '/x'"),
        (zipped({"a\\..\\..\\x": "x"}), "files within the archive"),
        (zipped({"a/x": "x", "bx": "x"}).replace(b"bx", b"\0x"), "files within the archive p.zip, got ''"),
        (zipped({"a": "x", "a/x": "x"}), "Expected to unpack p.zip"),
        (zipped({"a/" + "x" * 300: "x"}), "Expected to unpack p.zip"),
        (zipped({f"a/{number}": "" for number in range(30)}), "at most 20 files in p.zip, got 30"),
        (encrypted(), "which is encrypted"),
        (of_another_method(), "which is damaged: That compression method is not supported"),
        (zipped({"a/x": "x" * 100})[:-40], "which is damaged"),
    ],
)
def test_an_archive_that_is_not_to_be_unpacked_leaves_nothing(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MEMBERS", 20)
    with pytest.raises((InvalidDataError, OutputError), match=message) as raised:
        fetch_archive(tmp_path / "home", content)
    assert str(raised.value).isprintable()
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["p.zip"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_full_disk_is_a_sentence_before_and_while_it_is_unpacked(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage._replace(free=3))
        with pytest.raises(OutputError, match=r"Expected 4 bytes of room to unpack p\.zip, got 3 in"):
            fetch_archive(tmp_path, zipped({"a/x": "four"}))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download, "_unpack_member", full)
        with pytest.raises(OutputError, match="No space left on device; nothing of it is kept"):
            fetch_archive(tmp_path, zipped({"a/x": "four"}))
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]
    assert fetch_archive(tmp_path, zipped({"a/x": "four"})) == tmp_path / "thief"


@pytest.mark.parametrize("folder", ["../../precious", "/precious", "..", ".", "", "a/../../../precious"])
def test_only_what_was_unpacked_is_moved(folder, tmp_path):
    precious = write(tmp_path / "precious", {"data.csv": "work of years"})
    with pytest.raises(TypeError, match="no path below the top of the archive"):
        fetch_archive(tmp_path, zipped({"a/x": "x"}), folder)
    (tmp_path / "c.toml").write_text(
        OWN.replace('path = "events.csv"\n', "").replace("[events]", '[events]\nfile = "data.csv"')
        + f'[download]\nurl = "http://127.0.0.1:9/p.zip"\nchecksum = "md5:00"\nfolder = "{folder}"\n'
    )
    with pytest.raises(InvalidDataError, match="no path below the top of the archive"):
        load_dataset(tmp_path / "c.toml", tmp_path, show_progress=False)
    assert (precious / "data.csv").read_text() == "work of years"


@pytest.mark.parametrize(
    ("url", "checksum"),
    [("http://x/", "md5:0"), ("http://x/..", "md5:0"), ("http://x/a.zip", "none:0"), ("http://x/a.zip", "md5")],
)
def test_a_download_needs_a_file_and_a_checksum(url, checksum):
    with pytest.raises(TypeError, match=r"does not end in the name of a file|is none such as md5"):
        recvae.datasets.card.Download(url, checksum, "a")


# real data -----------------------------------------------------------------------------------------------------------

COUNTS = {  # of the training matrix after the card's filters
    "ml-100k": (938, 1447, 55361),
    "ml-1m": (6034, 3533, 575272),
    "ml-latest-small": (603, 6298, 48562),
    "lastfm-2k": (1877, 17617, 92801),
    "ml-10m-implicit": (60655, 8641, 2105971),
    "gowalla": (29858, 40981, 1027370),
    "yelp2018": (31668, 38048, 1561406),
    "amazon-cds": (43169, 35648, 777426),
}
PUBLISHED_SPLITS = ("gowalla", "yelp2018", "amazon-cds")  # splits that were published: numbers alone


@pytest.mark.parametrize("name", COUNTS)
def test_real_data_as_published(name, data_home):
    if not (data_home / name).is_dir():
        pytest.skip(f"needs {name} in RECVAE_DATA")
    data = recvae.load_dataset(name, data_home)
    assert (data.n_users, data.n_items, data.n_events) == COUNTS[name]
    if data.titles is not None:
        titles = dict(zip(data.item_ids.tolist(), data.titles, strict=True))
        assert titles[1] == ("MALICE MIZER" if name == "lastfm-2k" else "Toy Story (1995)")
    if data.genres is not None:
        assert "Comedy" in dict(zip(data.item_ids.tolist(), data.genres, strict=True))[1]
    assert (data.titles is None) == (name in ("ml-10m-implicit", *PUBLISHED_SPLITS))
    assert (data.genres is None) == (name in ("lastfm-2k", "ml-10m-implicit", *PUBLISHED_SPLITS))
    assert (data.times is None) == (name in ("lastfm-2k", "ml-10m-implicit", *PUBLISHED_SPLITS))


def test_gowalla_as_published(data_home):
    if not (data_home / "gowalla").is_dir():
        pytest.skip("needs gowalla in RECVAE_DATA")
    split = load_split("gowalla", data_home)
    assert (split.refit.n_users, split.refit.n_items, split.refit.n_events) == (29858, 40981, 810128)
    assert (len(split.test.users), split.test.held_out.nnz, split.test.dropped) == (29858, 217242, 0)
    # a tenth of each user's items, rounded down or up
    assert split.valid.held_out.nnz == pytest.approx(81_013, abs=300)
    hidden = np.diff(split.refit.matrix.indptr) - np.diff(split.train.matrix.indptr)
    assert np.abs(hidden - np.diff(split.refit.matrix.indptr) / 10).max() < 1


def test_times_that_are_not_known_forbid_a_split_by_time(data_home):
    if not (data_home / "ml-1m").is_dir():
        pytest.skip("needs ml-1m in RECVAE_DATA")
    data = load_dataset("ml-1m", data_home)
    if (data.times.data == 0).any():  # as in one copy of the data
        with pytest.raises(InvalidDataError, match="Expected a time for each event"):
            temporal_split(data)
    else:
        assert temporal_split(data).test.held_out.nnz > 0
