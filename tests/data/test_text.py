"""Text files as people have them: each is read right, or refused by a sentence that names the line and the column."""

import csv
import gzip
import io
import random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae import Interactions
from recvae.data.tables import quotes
from recvae.data.tables.text import read_delimited
from recvae.data.tables.text_file import Format, TextFile
from recvae.datasets.parsers import read_events
from recvae.datasets.table_spec import TableSpec
from recvae.errors import InvalidDataError, RecvaeError


def read(folder, text, name="a.csv", **options):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Interactions.read(folder / name, **options)


def plays(line, at, n=1000, delimiter="\t"):
    rows = [delimiter.join((str(k % 50), str(k % 31), f"song {k}")) for k in range(n)]
    rows[at] = line
    return delimiter.join(("user", "item", "title")) + "\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("name", "text", "line", "column"),
    [
        ("a.tsv", plays('7\t7\t"12 inch remix', 100), 102, "title"),
        ("a.tsv", plays('7\t"7\tremix', 100), 102, "item"),
        ("a.tsv", plays('"7\t7\tremix', 998), 1000, "user"),
        ("a.csv", plays('7,7,"12 inch', 3, delimiter=",")[:-1], 5, "title"),
        ("a.csv", "user,item,title\n1,2,a\n3,4,\"b\n5,6,c\n7,8,9\"\n9,9,d\n", 3, "title"),  # consistent by chance
        ("a.csv", "user,item,title\nu1,i2,a\nu3,i4,\"b\nu5,i6,5\"\nu9,i9,d\n", 3, "title"),
        ("a.csv", "user,item,title\n1,2,a\n3,\"4,b\n5,6\",c\n9,9,d\n", 3, "item"),
        ("a.csv", "user,item,title\n1,2,a\n3,4,\"b\n5,6,\"c, d\"\n9,9,d\n", 3, "title"),  # another's quote closes it
        ("a.csv", "user,item,title\n1,2,5\" disc\n3,4,\"b\n5,6,c\n", 3, "title"),
        ("a.csv", "user,item,title\n1,2,\"a\nb\"\n3,4,\"b\n5,6,c\n", 4, "title"),
        ("a.csv", "user,item,title\r\n1,2,a\r\n3,4,\"b\r\n5,6,c\r\n", 3, "title"),
        ("a.csv", "user,item,title\r1,2,a\r3,4,\"b\r5,6,c\r", 3, "title"),
        ("a.csv", 'user,item,t\nAnn,1,x\nAnn Lee,1,x\nBob,2,"a\nBob Lee,3,b\n\nCy,4,5"\nDee,5,c\n', 4, "t"),
        ("a.csv.gz", gzip.compress(b'user,item,title\n1,2,a\n3,4,"b\n', mtime=0), 3, "title"),
    ],
)  # fmt: skip
def test_a_quote_that_is_never_closed_is_named(name, text, line, column, tmp_path):
    with pytest.raises(InvalidDataError, match=rf"line {line}: a quote in column '{column}' is not closed"):
        read(tmp_path, text, name)


@pytest.mark.parametrize(
    "text",
    [
        'user,item,review\n1,2,"good\nwarm, dry, light"\n3,4,c\n',  # as many commas as columns
        'user,review,item\n1,"x, y\n\nz, w",2\n9,d,9\n',
        'review,user,item\n"x, y\r\nz, w",1,2\r\nd,9,9\r\n',
        'user,item,review\r1,2,"a\rb"\r3,4,c\r',
        'user,item,review\n1,2,"say ""hi"", he\nsaid"\n3,4,""""\n5,6,""\n',
        'user,item,review\n1,2,12" disc\n3,4,a"b"c\n5,6,x""\n7,8,"ok, yes"\n9,10,5"\n',
        "user,item,review\n1,2," + "x" * 1_500_000 + "\n3,4,y\n",
        'user,item,review\n1,2,"' + "x\n" * 300_000 + '"\n3,4,y\n',
        'user,item,review\n1,2,"' + "Ann, 3, 5\n" * 3 + '"\n3,4,y\n',
    ],
)
def test_line_breaks_and_quotes_within_fields_are_read_as_pandas_reads_them(text, tmp_path):
    data = read(tmp_path, text)
    frame = pd.read_csv(io.StringIO(text, newline=""))
    assert data.account.rows == len(frame)
    assert data.user_ids.tolist() == sorted(frame["user"])
    assert data.item_ids.tolist() == sorted(frame["item"])


def test_reviews_of_several_lines_over_many_blocks(tmp_path):
    n = 30_000
    review = ["good " * 9 + "\nwarm, dry, light " * (k % 3 == 0) for k in range(n)]
    frame = pd.DataFrame({"user": [k % 500 for k in range(n)], "item": [k % 311 for k in range(n)], "review": review})
    frame.to_csv(tmp_path / "r.csv", index=False)
    data = Interactions.read(tmp_path / "r.csv")
    assert (data.n_users, data.n_items, data.matrix.sum()) == (500, 311, n)


ROWS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xyz"), st.text(',"\nab ', max_size=6)), min_size=1)


@settings(max_examples=40)
@given(ROWS, st.permutations(["user", "item", "text"]), st.sampled_from(["\n", "\r\n"]), st.integers(1, 40))
def test_what_a_writer_of_csv_writes_is_read(tmp_path_factory, rows, order, end, block):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerows(
            [order, *([dict(zip(("user", "item", "text"), row, strict=True))[c] for c in order] for row in rows)]
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quotes, "BLOCK", block)
        table = read_delimited(path, Format(), ["user", "item"]).table
    assert table["user"].to_pylist() == [user for user, _, _ in rows]
    assert table["item"].to_pylist() == [item for _, item, _ in rows]
    texts = [fields[order.index("text")] for _, fields in TextFile(path).records()][1:]
    assert texts == [text for _, _, text in rows]


def test_no_row_is_lost_where_a_quote_is_put_in_or_taken_out(tmp_path, monkeypatch):
    random.seed(0)
    titles = ["song", "a b", 'x 5"', "rock, pop", 'say "hi"', "n"]
    kept = 0
    for trial in range(120):
        monkeypatch.setattr(quotes, "BLOCK", random.choice([5, 40, 1 << 20]))
        order = random.sample(["user", "item", "title"], 3)
        made = io.StringIO()
        writer = csv.DictWriter(made, order, lineterminator="\n", quoting=random.choice([0, 1]))
        writer.writeheader()
        n = random.randint(3, 20)
        for k in range(n):
            user = str(k) if trial % 2 else f"user{k}"
            writer.writerow({"user": user, "item": f"i-{k % 7}", "title": random.choice(titles)})
        text = made.getvalue()
        at = random.randrange(text.index("\n") + 1, len(text))
        if trial % 3:  # at the beginning of a field
            at = max(text.rfind(",", 0, at), text.rfind("\n", 0, at)) + 1
            text = text[:at] + '"' + text[at:]
        else:
            at = text.find('"', at)
            text = text[:at] + text[at + 1 :]
        try:
            found = read(tmp_path, text).account.rows
        except InvalidDataError:
            continue
        assert found == n, text
        kept += 1
    assert kept > 10


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("user,item\n17850.0,10\n13047.0,10\n", [13047, 17850]),
        ("user,item\n17850.0,10\n17850,20\n13047.00,20\n", [13047, 17850]),
        ("user,item\n007,1\n7,2\n", ["007", "7"]),
        ("user,item\n1.5,1\n2,2\n", ["1.5", "2"]),
        ("user,item\n12e4,1\nff01,2\n", ["12e4", "ff01"]),
        ("user,item\nNan,1\nNaomi,2\n", ["Nan", "Naomi"]),  # a name
        ("\n\nuser,item\n\n1,2\n\n3,4\n\n", [1, 3]),
        (b"\xef\xbb\xbfuser,item\r\n1,2\r\n", [1]),
        (b'\xef\xbb\xbf"user","item"\n1,2\n', [1]),
        ("user,item\r1,2\r3,4", [1, 3]),
        ("user,item,\n1,2,\n3,4,\n", [1, 3]),
        (b"user,item,title\n1,2,\xff\n", [1]),  # in a column that no one asked for
        ("user,item,0,1\n1,2,3,4\n", [1]),
    ],
)
def test_ids_are_what_they_are_written_as(text, users, tmp_path):
    assert read(tmp_path, text).user_ids.tolist() == users


WORDS = ["NA", "N/A", "null", "NULL", "None", "nan", "NaN", "\\N", "<NA>", "", " ", '""']


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("others", [("1", "2"), ("ann", "bob")])
def test_words_for_nothing_are_no_ids(word, others, tmp_path):
    one, other = others
    with pytest.raises(InvalidDataError, match=r"in every row of 'user', got .* in line 3 of .*; drop such rows"):
        read(tmp_path, f"user,item\n{one},1\n{word},2\n{other},3\n{word},4\n")
    with pytest.raises(InvalidDataError, match=r"in every row of 'item', got .* in line 4 of"):
        read(tmp_path, f"user,item,text\n{one},1,\n{other},2,\n{other},{word},\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\n1,2\n\n3,4,5\n6,7\n", "line 4: Expected 2 columns, got 3: '3,4,5'"),
        ('user,item,t\n1,2,"a\nb"\n3,4\n', "line 4: Expected 3 columns, got 2"),
        ("user,item\n1,2,\n3,4,\n", "line 2: Expected 2 columns, got 3"),
        (b"user,item\n1,2\n3,\x004\n", "line 3: a NUL byte"),
        ("user,item\n1,2\né,3\n".encode() + "ü,3\n".encode("latin-1"), "line 4: no text in UTF-8"),
        ("\n\n", "Empty CSV file"),
        ('user,"item,title\n1,2,a\n3,4,b\n', "line 1: a quote in column .* is not closed before the end"),
        ("user,item\n1.0,2\n1,4\nx,4\n", "line 2: '1.0' in column 'user' is '1' in another row"),
        ("user,item\n3,2\n1.23E+11,4\n", r"line 3: '1.23E\+11' in column 'user' is a number that may have lost digits"),
        ("user,item\n1, 2\n3, 4\n", "line 2: ' 2' in column 'item' has spaces around it"),
        ("user,item\na,x\na ,x\n", "line 3: 'a ' in column 'user' is 'a' in another row"),
        ("196,242,3\n186,302,3\n", "line 1 looks like a row"),
        ("user/item\n1/2\n", "is the delimiter another than ','"),
    ],
)
def test_broken_lines_are_named(text, message, tmp_path):
    with pytest.raises(InvalidDataError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("good", "line 3: Expected numbers in column 'stars', got string: 'good'"),
        ("NA", "line 3: Expected numbers in column 'stars'"),
        ('"3,5"', "line 3: Expected numbers in column 'stars', got string: '3,5'"),
        ("", "line 3: Expected a value in every row of 'stars', got none"),
        ("nan", "line 3: Expected finite values in column 'stars', got nan"),
        ("inf", "line 3: Expected finite values in column 'stars', got inf"),
    ],
)
def test_values_that_are_no_numbers_are_named(cell, message, tmp_path):
    with pytest.raises(InvalidDataError, match=message):
        read(tmp_path, f"user,item,stars\n1,2,3\n1,3,{cell}\n2,3,4.5\n", value="stars")


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "line 1: no text in UTF-8"), ("utf-16-le", "a NUL byte"), ("latin-1", "line 3: no text in UTF-8")],
)
def test_an_encoding_that_is_given_is_not_changed(encoding, message, tmp_path):
    text = "user,item\n1,2\nü,3\n".encode(encoding)
    with pytest.raises(InvalidDataError, match=message):
        read(tmp_path, text, encoding="utf-8")
    assert read(tmp_path, text).user_ids.tolist() == ["1", "ü"]


def test_a_first_row_that_is_asked_for_as_a_header(tmp_path):
    with pytest.raises(InvalidDataError, match="line 1: expected names of columns, got a row"):
        read(tmp_path, "196,242\n186,302\n", user="196", item="242")
    assert read(tmp_path, "0,1\n186,302\n", user="0", item="1").user_ids.tolist() == [186]  # columns by number


def events(folder, text, **options):
    (folder / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_events(folder, TableSpec(**{"columns": ["user", "item", "value"], "file": "a.txt"} | options)).table
    return found["user"].to_pylist(), found["item"].to_pylist()


@pytest.mark.parametrize("delimiter", ["::", "||", ", ", " | ", "\t\t"])
def test_delimiters_of_several_characters(delimiter, tmp_path):
    rows = [("1", "a", "3"), ("2", delimiter[0] + "b" + delimiter[0] + "c", "4")]
    assert events(tmp_path, "\n".join(map(delimiter.join, rows)), delimiter=delimiter)[0] == [1, 2]
    found = events(
        tmp_path, f'1{delimiter}"a{delimiter}b"{delimiter}3\n2{delimiter}c{delimiter}3\n', delimiter=delimiter
    )
    assert found == ([1, 2], [f"a{delimiter}b", "c"])
    with pytest.raises(InvalidDataError, match="line 2: Expected 3 columns, got 2"):
        events(tmp_path, f"1{delimiter}2{delimiter}3\n4{delimiter}5\n", delimiter=delimiter)
    with pytest.raises(InvalidDataError, match="line 2: a control character"):
        events(tmp_path, f"1{delimiter}2{delimiter}3\n4{delimiter}\x1f5{delimiter}3\n", delimiter=delimiter)


def test_headers_that_a_card_does_not_know_of(tmp_path):
    for text in (
        "userId,movieId,rating\n1,2,3\n4,5,3\n",
        "user,item,value\nann,x,3\nbob,y,4\n",
        "u,i,v\n1,2,3\n4,5,6\n",
    ):
        with pytest.raises(InvalidDataError, match=r"line 1: .*set header = true"):
            events(tmp_path, text)
    with pytest.raises(InvalidDataError, match=r"line 1: expected names of columns, got a row.*set header = false"):
        events(tmp_path, "7,2,3\n4,5,6\n", header=True)
    with pytest.raises(InvalidDataError, match=r"line 1: .*set header = false"):
        events(tmp_path, "ann,x,3\nbob,y,6\n", header=True)
    assert events(tmp_path, "0,1,2\n4,5,6\n", header=True) == ([4], [5])
    assert events(tmp_path, "\nu,i,v\n4,5,6\n", header=True) == ([4], [5])
    assert events(tmp_path, "1,2,3\n", header=False) == ([1], [2])


def test_encodings_of_cards(tmp_path):
    for encoding in ("latin-1", "utf-16", "cp1252"):
        assert events(tmp_path, "ü,ß,3\nb,c,4\n".encode(encoding), encoding=encoding)[0] == ["ü", "b"]
    with pytest.raises(InvalidDataError, match="line 2 is no text in cp932"):
        events(tmp_path, b"a,b,3\n\x81\x20,c,4\n", encoding="cp932")
    with pytest.raises(RecvaeError, match="unknown encoding"):
        events(tmp_path, b"a,b,3\n", encoding="utf-9")
