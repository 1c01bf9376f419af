"""Each line of the guide's table of files runs on a made-up file of its kind, and counts as pandas does."""

import gzip
import json
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from scipy import io, sparse

from recvae.cli import main as cli
from recvae.cli.inputs import load_events

PAGE = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
ROWS = re.findall(r"^\| `(\S+)` \| (.*?) \| `(recvae .*?)` \|$", PAGE, re.MULTILINE)


def made_events() -> pd.DataFrame:
    """40 users on 30 items without repetition, as integers; the first is that of ml-100k."""
    rng = np.random.default_rng(0)
    events = pd.DataFrame({"user": rng.integers(1, 40, 400), "item": rng.integers(1, 30, 400)})
    events = pd.concat([pd.DataFrame({"user": [196], "item": [242]}), events]).drop_duplicates()
    events["value"] = [3, *rng.integers(1, 6, len(events) - 1)]
    events["time"] = 881250949 + np.arange(len(events)) * 1000
    extra = pd.DataFrame({"user": 196, "item": np.arange(1, 14), "value": 5, "time": 891250949})
    return pd.concat([events, extra]).sort_values("user", key=lambda u: u != 196, kind="stable").reset_index(drop=True)


EVENTS = made_events()


def named(events=EVENTS):
    """The same with text as ids."""
    return events.assign(user="u" + events.user.astype(str), item="b" + events.item.astype(str))


def lines(rows, path):
    path.write_text("\n".join(rows) + "\n")


def lists(events):
    return events.groupby("user", sort=False)["item"].agg(list).items()


def dumped(records, path):
    lines(map(json.dumps, records), path)


def delimited(names, delimiter, path):
    EVENTS.set_axis(names, axis=1).to_csv(path, index=False, sep=delimiter)


def review(user, item, value):
    return {"user_id": user, "business": {"id": item}, "stars": float(value), "text": 'nice, "really"\n'}


def amazon(path):
    records = [{"reviewerID": e.user, "asin": e.item, "overall": float(e.value)} for e in named().itertuples()]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))


def games(path):
    of_user = named().rename(columns={"item": "item_id", "value": "playtime"}).groupby("user", sort=False)
    lines((repr({"user_id": u, "items": g[["item_id", "playtime"]].to_dict("records")}) for u, g in of_user), path)


def ratings_of_users(path):
    of_user = named().groupby("user", sort=False)
    path.write_text(json.dumps({u: dict(zip(g.item, g.value.tolist(), strict=True)) for u, g in of_user}))


def sequences(path):
    rows = (f"{user}\t{' '.join(map(str, items))}" for user, items in lists(EVENTS))
    lines(["user_id:token\titem_id_list:token_seq", *rows], path)


def matrix(fill=0):
    return EVENTS.pivot_table(index="user", columns="item", values="value", fill_value=fill, sort=False)


def bought(path):
    cells = (matrix() > 0).astype(int)
    cells.columns = [f"i{item}" for item in cells.columns]
    cells.rename_axis("customer").to_csv(path)


def jester(path):
    cells = matrix(99)
    cells.insert(0, "n", (cells != 99).sum(axis=1))
    cells.to_csv(path, index=False, header=False)


def umsatz(path):
    rows = [f"u{e.user};b{e.item};{e.value},50;{e.value:02}.01.2020" for e in EVENTS.itertuples()]
    path.write_bytes("\r\n".join(["Kunde;Artikel;Menge;Datum;Größe", *(f"{row};ü" for row in rows)]).encode("latin-1"))


def cells_of(events):
    users, items = (np.unique(events[name]) for name in ("user", "item"))
    rows, columns = np.searchsorted(users, events.user), np.searchsorted(items, events.item)
    return sparse.csr_matrix((events.value.to_numpy(float), (rows, columns)))


def npz(with_ids, path):
    users, items = (np.unique(EVENTS[name]) for name in ("user", "item"))
    cells = cells_of(EVENTS)
    arrays = {name: getattr(cells, name) for name in ("data", "indices", "indptr", "shape")} | {"format": b"csr"}
    if with_ids:
        arrays |= {"user_ids": users, "item_ids": np.char.add("b", items.astype(str))}
    np.savez(path, **arrays)


def libsvm(path):
    of_user = EVENTS.groupby("user", sort=False)
    lines(("1 " + " ".join(f"{e.item}:{e.value}" for e in group.itertuples()) for _, group in of_user), path)


def workbook(path):
    """A sheet as Excel writes it, with numbers as floats, and a customer who is missing."""
    head = ["InvoiceNo", "StockCode", "CustomerID"]
    rows = [head, *([k, f"b{e.item}", float(e.user)] for k, e in enumerate(EVENTS.itertuples())), [1, "b7", None]]

    def cell(value):
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return "<c/>" if value is None else f"<c><v>{value}</v></c>"

    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{types}.sheet.main+xml"/>'
        f'<Override PartName="/xl/sheet1.xml" ContentType="{types}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="2010" sheetId="1" r:id="s"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="s" '
        f'Type="{office}/worksheet" Target="sheet1.xml"/></Relationships>',
        "xl/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in parts.items():
            packed.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')


def as_lists(write: Callable) -> Callable:
    return lambda path: write(path, lists(EVENTS))


WRITERS: dict[str, Callable[[Path], object]] = {
    "ratings.csv": lambda path: delimited(["user", "item", "rating", "time"], ",", path),
    "ratings.tsv": lambda path: delimited(["userId", "movieId", "rating", "timestamp"], "\t", path),
    "reviews.json": lambda path: dumped((review(e.user, e.item, e.value) for e in named().itertuples()), path),
    "reviews.json.gz": amazon,
    "events.json": lambda path: path.write_text(json.dumps(EVENTS[["user", "item"]].to_dict("records"))),
    "export.json": lambda path: path.write_text(
        json.dumps({"count": 3000, "data": EVENTS[["user", "item"]].to_dict("records")})
    ),
    "baskets.jsonl": lambda path: dumped(({"user": u, "items": items} for u, items in lists(named())), path),
    "games.json": games,
    "histories.json": lambda path: path.write_text(json.dumps(dict(lists(named())))),
    "ratings.json": ratings_of_users,
    "frame.json": lambda path: EVENTS.to_json(path),
    "events.parquet": lambda path: named().to_parquet(path),
    "lists.parquet": lambda path: pa.parquet.write_table(
        pa.table(dict(zip(("user", "items"), map(list, zip(*lists(named()), strict=True)), strict=True))), path
    ),
    "ml.inter": lambda path: delimited(
        ["user_id:token", "item_id:token", "rating:float", "timestamp:float"], "\t", path
    ),
    "sequences.inter": sequences,
    "train.txt": as_lists(
        lambda path, of_user: lines((f"{k} {' '.join(map(str, i))}" for k, (_, i) in enumerate(of_user)), path)
    ),
    "users.txt": as_lists(lambda path, of_user: lines((f"{u} {' '.join(map(str, i))}" for u, i in of_user), path)),
    "retail.dat": as_lists(lambda path, of_user: lines((" ".join(map(str, i)) for _, i in of_user), path)),
    "users.dat": as_lists(lambda path, of_user: lines((f"{len(i)} {' '.join(map(str, i))}" for _, i in of_user), path)),
    "bought.csv": bought,
    "jester.csv": jester,
    "orders.csv": as_lists(
        lambda path, of_user: lines(["customer,products", *(f"{u},{' '.join(map(str, i))}" for u, i in of_user)], path)
    ),
    "sessions.csv": as_lists(
        lambda path, of_user: lines(["session,items", *(f'{u},"{json.dumps(i)}"' for u, i in of_user)], path)
    ),
    "ratings.dat": lambda path: lines(map("::".join, EVENTS.astype(str).to_numpy()), path),
    "u.data": lambda path: lines(map("\t".join, EVENTS.astype(str).to_numpy()), path),
    "umsatz.csv": umsatz,
    "events.feather": lambda path: pa.feather.write_feather(pa.Table.from_pandas(named()), str(path)),
    "ratings.mtx": lambda path: io.mmwrite(path, cells_of(EVENTS)),
    "dense.npy": lambda path: np.save(path, cells_of(EVENTS).toarray()),
    "matrix.npz": lambda path: npz(False, path),
    "named.npz": lambda path: npz(True, path),
    "rows.libsvm": libsvm,
    "events.libfm": lambda path: lines((f"{e.value} {e.user}:1 {e.item + 1000}:1" for e in EVENTS.itertuples()), path),
    "retail.xlsx": workbook,
}
BY_NUMBER = (
    "ratings.mtx",
    "dense.npy",
    "train.txt",
    "retail.dat",
    "users.dat",
    "jester.csv",
    "matrix.npz",
    "rows.libsvm",
)  # ids of users
AT_LEAST = {"ratings.tsv": 4, "ml.inter": 4, "ratings.dat": 4, "ratings.json": 3, "jester.csv": 3}


def test_each_line_of_the_table_has_a_file():
    assert [name for name, _, _ in ROWS] == list(WRITERS)


@pytest.mark.parametrize(("name", "begins", "command"), ROWS, ids=[name for name, _, _ in ROWS])
def test_one_command_from_the_file_to_lists(name, begins, command, tmp_path, monkeypatch):
    if name.endswith(".xlsx"):
        pytest.importorskip("python_calamine")
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    WRITERS[name](path)
    if begins.startswith("`"):
        content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        assert content.decode("latin-1").startswith(re.match("`(.*?)`", begins)[1].replace("<tab>", "\t"))

    words = shlex.split(command)[1:]
    assert cli.main([*words, "--out", "top10.csv"]) == 0
    lists_made = pd.read_csv("top10.csv")
    data = load_events(cli._parse(words))

    events = EVENTS[EVENTS.value >= AT_LEAST.get(name, 0)].drop_duplicates(["user", "item"])
    assert (data.n_users, data.n_items) == (events.user.nunique(), events.item.nunique())
    assert data.n_events == len(events)
    if name not in BY_NUMBER:
        ids = data.user_ids.astype(str)
        assert {user.removeprefix("u") for user in ids} == set(events.user.astype(str))
        # who rated, but liked nothing, gets a list, too
        assert set(lists_made.user.astype(str).str.removeprefix("u")) <= set(EVENTS.user.astype(str))
    assert set(lists_made.item) <= set(data.item_ids)
    assert lists_made.groupby("user").size().max() == 10
    seen = set(zip(data.user_ids[data.matrix.nonzero()[0]], data.item_ids[data.matrix.nonzero()[1]], strict=True))
    assert not seen & set(zip(lists_made.user, lists_made.item, strict=True))
