"""Files of other shapes than tables: what is read, and what is refused with the line and the option that decides."""

import gzip
import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from recvae import Interactions
from recvae.errors import InvalidDataError, InvalidTypeError, MissingDependencyError


def read(tmp_path, name, content, **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Interactions.read(path, **options)


def pairs(data):
    """(user, item, value) of all cells."""
    cells = data.matrix.tocoo()
    users, items = data.user_ids[cells.row].tolist(), data.item_ids[cells.col].tolist()
    return sorted(zip(users, items, cells.data.tolist(), strict=True))


REFUSED = [
    ("a.jsonl", '{"user":"a","item":"x"}\n\n{"user":"b","item":"x"\n', {}, "line 3: expected an object of JSON"),
    ("a.jsonl", '{"user":"a","item":"x"}\n{"user":null,"item":"x"}\n', {}, "got none in line 2 .*without_id='drop'"),
    ("a.json", '[\n{"user":1,"item":2},\n{"user":1}]', {}, "'item', got none in line 3"),
    ("a.jsonl", '{"user":"a","item":"x","v":"?"}\n', {"value": "v"}, "line 1: Expected numbers in column 'v'"),
    ("a.jsonl", '{"user":"a","item":{"id":1}}\n', {}, "Expected numbers or text for items"),
    ("a.jsonl", '{"who":"a","item":1}\n', {}, r"key 'user' for users .* keys are \['who', 'item'\]"),
    ("a.jsonl", '{"user":1.5,"item":1}\n', {}, "line 1: expected integers or text as ids in 'user', got 1.5"),
    ("a.json", '{"ann": [1], "ann": [2]}', {}, "each user of .* once"),
    ("a.json", '{"ann": [1], "bob": 2}', {}, "a list of items for each user"),
    ("a.jsonl", '{"user":"a","item":["x","y"],"n":[1]}\n', {"value": "n"}, r"lists of one length .*\[1, 2\]"),
    ("a.json", "user,item\n1,2\n", {}, "expected JSON that begins with"),
    ("a.json", '[{"user":1,"item":2}', {}, "no JSON array"),
    ("a.dat", "1 2 3\n1 2\n4 5 6 7\n", {}, "'adjacency' .*'baskets' .*'counted'"),
    ("a.dat", "2 10 20\n1 30\n3 1 2 3\n", {"format": "baskets"}, "line 1: .*the number of items in front.*'counted'"),
    (
        "a.dat",
        "2 10 20\n1 30 40\n",
        {"format": "counted"},
        "line 2: expected the number of items and as many items, got 2",
    ),
    ("a.txt", b"1 2\n\n1 \xff 3\n", {"format": "adjacency"}, "line 3: no text in UTF-8.*encoding='latin-1'"),
    ("a.txt", "1 2\n", {"format": "baskets", "value": "stars"}, r"value \('stars'\) in .* has none"),
    ("a.csv", "4,3,1\n1,1,5\n", {"format": "matrix"}, "line 1: expected to tell names.*header=True or header=False"),
    ("a.csv", "0,1,0\n1,1,x\n", {"format": "matrix"}, "line 2: expected numbers in column '2', got 'x'.*missing='x'"),
    ("a.csv", "u,i,j\na,1,0\nb,1\n", {"format": "matrix"}, "line 3: expected 3 columns, got 2"),
    ("a.csv", "who,i\na,1\n", {"format": "matrix", "user": "me"}, "column 'me' of users"),
    ("a.txt", "5 0:1 9:1\n3 0:1 8:1\n1 1:1 9:1\n", {}, "format='libfm' if each line is an event, format='libsvm'"),
    ("a.libsvm", "1 3:1\n1 x:1\n", {}, "line 2: expected index:value, got 'x:1'"),
    ("a.libfm", "5 0:1 9:1\n3 0:1 8:1 7:1\n", {}, "line 2: expected a label and two features, .*, got 3"),
    ("a.inter", "user_id,item_id\n1,2\n", {}, "line 1: expected names of columns with types"),
    ("a.inter", "user_id:token\titem_id:token\n1\n", {}, "line 2"),
    ("a.csv", "user,item\n1,2 3 4\n2,5 6\n", {}, "one item in each row .* '2 3 4'.*item_delimiter=' '"),
    ("a.npz", b"PK", {}, "sparse matrix as scipy.sparse.save_npz writes it"),
    ("a.npy", b"x", {}, "expected an array of numbers"),
    ("a.mtx", "x", {}, "no Matrix Market file"),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), REFUSED, ids=[f"{n}-{m}" for n, _, _, m in REFUSED])
def test_what_is_refused_and_how_to_mend_it(name, content, options, message, tmp_path):
    with pytest.raises(InvalidDataError, match=message):
        read(tmp_path, name, content, **options)


READ = [
    ("ids of two types", "a.jsonl", '{"user":1,"item":7}\n{"user":1.0,"item":"x"}\n', {}, [(1, "7", 1), (1, "x", 1)]),
    ("ids like 007", "a.jsonl", '{"user":"007","item":7}\n', {}, [("007", 7, 1)]),
    ("numbers as text", "a.jsonl", '{"user":"7","item":"8","n":"2.5"}', {"value": "n"}, [(7, 8, 2.5)]),
    ("a byte order mark", "a.json", '\ufeff[{"user":1,"item":2}]', {}, [(1, 2, 1)]),
    ("UTF-16", "a.json", '[{"user":"é","item":2}]'.encode("utf-16"), {"encoding": "utf-16"}, [("é", 2, 1)]),
    ("a key with a dot", "a.jsonl", '{"u.id":1,"item":2}', {"user": "u.id"}, [(1, 2, 1)]),
    ("an array deep inside", "a.json", '{"data":{"rows":[{"user":1,"item":2}]}}', {}, [(1, 2, 1)]),
    ("columns in lists", "a.json", '{"user":[1,2],"item":[3,4]}', {}, [(1, 3, 1), (2, 4, 1)]),
    ("gaps dropped", "a.jsonl", '{"user":null,"item":2}\n{"user":1,"item":2}', {"without_id": "drop"}, [(1, 2, 1)]),
    ("a word for none", "a.jsonl", '{"user":"?","item":2}\n{"user":"a","item":2}',
     {"without_id": "drop", "missing": ["?"]}, [("a", 2, 1)]),
    ("a comment and a header", "a.txt", "# made\nuser items\n5 7 8\n",
     {"format": "adjacency", "comment": "#", "header": True}, [(5, 7, 1), (5, 8, 1)]),
    ("ids from pandas", "a.csv", ",10,20\n0,1,0\n1,1,1\n", {"format": "matrix"}, [(0, 10, 1), (1, 10, 1), (1, 20, 1)]),
    ("blanks and a code", "a.txt", "1 9\n9 3\n", {"format": "matrix", "missing": ["9"], "header": False},
     [(1, 0, 1), (2, 1, 3)]),
    ("decimal commas", "a.csv", "u;i;j\nx;2,5;\n", {"format": "matrix", "decimal": ","}, [("x", "i", 2.5)]),
    ("libsvm by content", "a.txt", "1 3:2\n0 3:1 4:1\n", {}, [(1, 3, 2), (2, 3, 1), (2, 4, 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "options", "expected"), [r[1:] for r in READ], ids=[r[0] for r in READ])
def test_what_is_read(name, content, options, expected, tmp_path):
    assert pairs(read(tmp_path, name, content, **options)) == expected


def test_json_beyond_one_block_and_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr("recvae.data.tables.json_files.BLOCK", 100)
    rng = np.random.default_rng(0)
    events = [{"user": f"u{u}", "item": int(i), "text": "x" * 30} for u, i in rng.integers(0, 9, (200, 2))]
    content = "\n".join(map(json.dumps, events))
    data = read(tmp_path, "a.json", content)
    assert {(u, i) for u, i, _ in pairs(data)} == {(e["user"], e["item"]) for e in events}
    assert data.matrix.sum() == 200
    assert pairs(read(tmp_path, "b.json.gz", gzip.compress(content.encode()))) == pairs(data)
    with pytest.raises(InvalidDataError, match="line 201: expected an object of JSON"):
        read(tmp_path, "c.json", content + "\nx")


def test_times_in_json(tmp_path):
    lines = '{"user":1,"item":2,"t":"31.01.2020"}\n{"user":1,"item":3,"t":null}\n'
    data = read(tmp_path, "a.jsonl", lines, time="t", time_format="%d.%m.%Y")
    assert data.times.toarray().tolist() == [[1580428800.0, 0.0]]


def test_what_was_guessed_is_said(tmp_path):
    data = read(tmp_path, "a.txt", "0 5 6\n1 5\n2 6 7 8\n")
    assert "taken for lines of a user and all items (adjacency)" in str(data.account)
    data = read(tmp_path, "b.csv", "2,9,5,3\n3,1,5,2\n1,9,9,3\n", format="matrix", missing=["9"])
    assert "the first column, which has the number of values of each row, is left out" in str(data.account)
    assert data.item_ids.tolist() == [1, 2, 3]


def test_ids_of_another_number_than_the_matrix_has(tmp_path):
    cells = sparse.csr_matrix(np.eye(3))
    arrays = {name: getattr(cells, name) for name in ("data", "indices", "indptr", "shape")}
    np.savez(tmp_path / "a.npz", format=b"csr", user_ids=np.arange(2), **arrays)
    with pytest.raises(InvalidDataError, match="Expected 3 integers or strings as user_ids"):
        Interactions.read(tmp_path / "a.npz")


def test_excel_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(MissingDependencyError, match=r"Excel files needs .*recvae\[excel\]"):
        read(tmp_path, "a.xlsx", b"x")


def test_lists_of_users():
    assert pairs(Interactions.from_lists({"ann": [7, 9], "bob": [7]})) == [("ann", 7, 1), ("ann", 9, 1), ("bob", 7, 1)]
    assert pairs(Interactions.from_lists({1: {"x": 5.0}, 2: {}})) == [(1, "x", 5)]
    with pytest.raises(InvalidTypeError, match="lists of items or mappings"):
        Interactions.from_lists({1: [2], 2: {3: 1.0}})
    frame = {"user": ["a", "b"], "item": [[1, 2], [1]], "value": [[3.0, 4.0], [5.0]]}
    assert pairs(Interactions.from_frame(pa.table(frame), value="value")) == [("a", 1, 3), ("a", 2, 4), ("b", 1, 5)]
