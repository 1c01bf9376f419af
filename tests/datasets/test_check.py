"""`recvae datasets --check`, and the page of cards, which has each key with its default."""

import json
import re
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from recvae import load_dataset
from recvae.cli.main import main
from recvae.datasets.card import Card, Download, Expected, Protocol, known_cards, load_card
from recvae.datasets.check import explain_card
from recvae.datasets.table_spec import TableSpec
from recvae.errors import InvalidDataError

PAGE = (Path(__file__).parents[2] / "docs" / "cards.md").read_text()
EXAMPLE = PAGE[PAGE.index('    name = "films"') : PAGE.index("With `events.csv`")].replace("    ", "")


def documented(*headings):
    """Keys and defaults in the tables of the page below these headings."""
    sections = dict(re.findall(r"(?ms)^## (.*?)$(.*?)(?=^## |\Z)", PAGE))
    return dict(re.findall(r"(?m)^\| `(\w+)` \| `?(.*?)`? \| ", "".join(sections[heading] for heading in headings)))


def written(field):
    default = field.default
    if default is msgspec.NODEFAULT:
        if field.default_factory is msgspec.NODEFAULT:
            return "needed"
        default = field.default_factory()
    if default == '"':
        return "'\"'"
    return "none" if default is None else json.dumps(default)


@pytest.mark.parametrize(
    ("heading", "structs"),
    [
        ("The card", [Card]),
        ("[events], [test] and [items]", [TableSpec]),
        ("[protocol]", [Protocol]),
        ("[expected] and [download]", [Expected, Download]),
    ],
)
def test_the_page_of_cards_has_each_key_and_its_default(heading, structs):
    tables = {"download", "expected", "events", "test", "items", "protocol"}
    fields = [field for struct in structs for field in msgspec.structs.fields(struct)]
    expected = {field.name: written(field) for field in fields if structs != [Card] or field.name not in tables}
    assert documented(heading) == expected


@pytest.fixture
def films(tmp_path):
    (tmp_path / "films.toml").write_text(EXAMPLE)
    rows = [(f"u{k % 10}", k % 13, ("4,5", "3", "2,5")[k % 3], f"{1 + k % 28:02}/01/2020") for k in range(130)]
    rows += [("", 3, "5", "01/01/2020")]
    (tmp_path / "events.csv").write_text("".join(";".join(map(str, row)) + "\n" for row in rows))
    (tmp_path / "films.csv").write_text("id,name\n" + "".join(f"{k},Film {k}\n" for k in range(13)))
    return tmp_path / "films.toml"


def test_check_says_what_a_card_was_understood_as(films, capsys):
    assert main(["datasets", "--check", str(films)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        'name = "films"',
        '[events] delimiter = ";"',
        '[events] without_id = "drop"',
        "[protocol] min_value = 3",
        '[events] events.csv: text in utf-8, delimiter ";", without a header, columns user, item, value, time',
        "[events] 130 rows, 10 users, 13 items, 1 more without an id, dropped; user: text, item: int64, value: double, "
        "time: timestamp[us]",
        "[items] films.csv: 13 titles, 0 with genres",
        "leave-last split: 10 users for test",
    ):
        assert line in lines
    assert any(line.startswith("[events] the first: user 'u0', item 0, value 4.5") for line in lines)
    assert any(line.startswith("[events] by default: layout = ") and "header = false" in line for line in lines)
    assert main(["datasets", "--check", str(films), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == lines


def test_a_card_reads_its_files_as_it_says(films):
    data = load_dataset(films)
    assert data.account.rows == 131
    assert data.account.left_out["without an id"] == 1
    assert data.matrix.data.min() >= 3
    assert (data.times.data >= 1_577_836_800).all()
    assert data.titles.tolist()[:2] == ["Film 0", "Film 1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'delimiter = ";"',
            'delimiter = "|"',
            r"\[events\] .*line 1: Expected 4 columns, got 1.* like delimiter = \";\"",
        ),
        ('decimal = ","', "", r"\[events\] .*line 1: Expected numbers in column 'value', got .*decimal = ','"),
        ("%d/%m/%Y", "%Y-%m-%d", r"\[events\] .*line 1: Expected a time as '%Y-%m-%d' .*time_format has to fit"),
        ('without_id = "drop"', "", r"\[events\] .*'user', got none in line 131 .*as without_id = 'drop' does"),
        ("header = true", "", r"\[items\] .*line 1: .*set header = true"),
        ("min_value = 3", "min_valu = 3", "protocol: there is no key `min_valu`"),
    ],
)
def test_what_a_card_gets_wrong_is_named_by_its_key(old, new, message, films):
    assert old in EXAMPLE
    films.write_text(EXAMPLE.replace(old, new))
    with pytest.raises(InvalidDataError, match=message):
        list(explain_card(films))


def test_cards_of_the_package_set_no_unknown_key():
    for name in known_cards():
        assert load_card(name).name == name
    assert next(iter(explain_card("sample"))) == 'name = "sample"'


SHAPES = {
    "reviews.jsonl": (
        'layout = "json"\nnames = {user = "reviewerID", item = "product.asin", value = "overall"}',
        [4, 2],
    ),
    "matrix.npz": ('layout = "npz"', [1, 1]),
    "events.parquet": ('columns = ["user", "item", "value"]\nnames = {user = "who", item = "what"}', [4, 2]),
}


def small_card(file, keys):
    """The path of a card of that file."""
    path = file.parent / "card.toml"
    path.write_text(
        f'name = "c"\ntitle = "C"\npath = "{file.name}"\n[events]\n{keys}\n'
        "[protocol]\nheldout_users = 1\nmin_user = 1\n"
    )
    return path


@pytest.mark.parametrize("file", SHAPES)
def test_a_card_names_kinds_of_files_and_their_columns(file, tmp_path):
    keys, values = SHAPES[file]
    path = tmp_path / file
    if file == "reviews.jsonl":
        rows = [
            {"reviewerID": f"u{k}", "product": {"asin": f"b{k}"}, "overall": value} for k, value in enumerate(values)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file == "matrix.npz":
        sparse.save_npz(path, sparse.eye_array(2, format="csr"))
    else:
        pq.write_table(pa.table({"who": ["u0", "u1"], "what": ["b0", "b1"], "value": values}), path)
    card = tmp_path / "card.toml"
    card.write_text(
        f'name = "c"\ntitle = "C"\npath = "{file}"\n[events]\n{keys}\n[protocol]\nheldout_users = 1\nmin_user = 1\n'
    )
    data = load_dataset(card)
    assert data.matrix.toarray().tolist() == [[values[0], 0], [0, values[1]]]
    assert len(data.user_ids) == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('layout = "json"\nnames = {users = "u"}', "names has 'users', which is none of user, item"),
        ('columns = ["user", "item"]\nnames = {user = "u"}', "Expected names for files that name their columns"),
        (
            'layout = "json"\nnames = {user = "u"}',
            r"Expected the key 'u' for users in .*, but the keys are",
        ),
    ],
)
def test_names_that_cannot_be_are_refused(keys, words, tmp_path):
    (tmp_path / "e.txt").write_text('{"user": 1, "item": 2}\n')
    card = tmp_path / "card.toml"
    card.write_text(
        f'name = "c"\ntitle = "C"\npath = "e.txt"\n[events]\n{keys}\n[protocol]\nheldout_users = 1\nmin_user = 1\n'
    )
    with pytest.raises(InvalidDataError, match=words):
        load_dataset(card)
