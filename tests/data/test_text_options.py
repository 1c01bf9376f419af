"""Text files of any format: what is given is respected, what is not is guessed, said, and can be corrected."""

import bz2
import gzip
import io
import logging
import lzma
import zipfile

import pyarrow as pa
import pytest

from recvae import Interactions
from recvae.data.tables import compressed
from recvae.data.tables.formats import FORMATS, kind_of, read_table
from recvae.data.tables.options import Columns, ReadOptions
from recvae.errors import InvalidDataError, InvalidParameterError, RecvaeError, UnknownNameError

ROWS = [("ann", 7, 5, 1000), ("ann", 9, 2, 2000), ("bob", 7, 4, 3000)]
POSITIONS = {"user": 0, "item": 1, "value": 2, "time": 3}
NAMES = {"user": "user", "item": "item", "value": "value", "time": "time"}


def written(delimiter, header=True, rows=ROWS):
    lines = [("user", "item", "value", "time")] * header + rows
    return "".join(delimiter.join(map(str, line)) + "\n" for line in lines)


def read(folder, content, name="a.dat", **options):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return Interactions.read(folder / name, **options)


def expected(data):
    assert data.user_ids.tolist() == ["ann", "bob"]
    assert data.item_ids.tolist() == [7, 9]
    assert data.matrix.toarray().tolist() == [[5, 2], [4, 0]]
    assert data.times is None or data.times.toarray().tolist() == [[1000, 2000], [3000, 0]]


def refused(folder, content, name="a.dat", **options):
    with pytest.raises(RecvaeError) as error:
        read(folder, content, name, **options)
    return str(error.value)


DELIMITERS = {",": "comma", "\t": "tab", ";": ";", "|": "pipe", "::": "::", " ": "space", "   ": "whitespace"}


@pytest.mark.parametrize("name", ["a.dat", "a.txt", "a.data", "a", "a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("header", [True, False])
def test_delimiter_and_header_are_guessed_or_given(delimiter, header, name, tmp_path):
    text, columns = written(delimiter, header), NAMES if header else POSITIONS
    data = read(tmp_path, text, name, **columns)
    expected(data)
    usual = delimiter == {"a.csv": ",", "a.tsv": "\t"}.get(name) and header
    assert bool(data.account.notes) == (not usual)
    assert ("no header" in str(data.account)) == (not header)
    given = read(tmp_path, text, name, **columns, delimiter=DELIMITERS[delimiter], header=header)
    expected(given)
    assert given.account.notes == ()
    expected(read(tmp_path, text, name, **POSITIONS, header=header))


def test_what_was_guessed_is_said_in_one_line(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "recvae"):
        data = read(tmp_path, written(";", False).encode("utf-16"), **POSITIONS)
    said = "read, as guessed, with delimiter ;, no header, encoding utf-16"
    assert str(data.account) == f"3 rows read, 3 events; {said}"
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'a.dat'}: {said}"]


def test_a_guess_is_named_where_a_file_cannot_be_read(tmp_path):
    text = written(";") + "bob;8\n"
    assert refused(tmp_path, text, **NAMES) == (
        f"The file {tmp_path / 'a.dat'} cannot be read: line 5: Expected 4 columns, got 2: 'bob;8'. This was read, as "
        f"guessed, with delimiter ;; delimiter, header, encoding can say otherwise."
    )
    assert "--delimiter, --header, --encoding can say otherwise" in flagged(tmp_path / "a.dat")


def flagged(path, columns=None, **options):
    with pytest.raises(RecvaeError) as error:
        read_table(path, columns or Columns(*NAMES), ReadOptions(spoken="flag", **options))
    return str(error.value)


def test_columns_by_position(tmp_path):
    text = written(",")
    expected(read(tmp_path, text, user=0, item="item", value=2))
    expected(read(tmp_path, text, user="0", item="1", value="2"))
    assert "at position 4, from 0, got 4 columns" in refused(tmp_path, text, user=4, item=1)
    assert "Expected different columns" in refused(tmp_path, text, user=1, item=1)
    assert "item as a position from 0, got -1" in refused(tmp_path, text, item=-1)
    assert "user as the name of a column or its position from 0, got True" in refused(tmp_path, text, user=True)
    bare = written(",", header=False)
    assert "line 1 looks like a row: ['ann', '7', '5', '1000']; begin the file with names, or name the columns by " in (
        refused(tmp_path, bare)
    )
    assert "--no-header --user 0 --item 1" in flagged(tmp_path / "a.dat")
    digits = read(tmp_path, "1,2,3\nann,7,x\nann,9,x\n", user="1", item="2")  # names of columns come first
    assert (digits.user_ids.tolist(), digits.item_ids.tolist()) == (["ann"], [7, 9])


def test_a_header_that_is_given_is_not_guessed(tmp_path):
    ids = "u1,i1\nu2,i2\n"
    assert read(tmp_path, ids, user=0, item=1).n_users == 2
    assert read(tmp_path, ids, user=0, item=1, header=True).n_users == 1
    assert read(tmp_path, "userId,movieId\nu2,i2\n", user=0, item=1).n_users == 1
    assert read(tmp_path, "userId,movieId\nu2,i2\n", user=0, item=1, header=False).n_users == 2
    assert "set header=True" in refused(tmp_path, "u,i\n1,2\n3,4\n", user=0, item=1, header=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"])
def test_encodings_are_guessed_or_given(encoding, tmp_path):
    name = "Zoë\x81" if encoding == "latin-1" else "Zoë"
    text = f"user,item\nann,1\n{name},2\n".encode(encoding)
    guessed, given = read(tmp_path, text, "a.csv"), read(tmp_path, text, "a.csv", encoding=encoding)
    assert guessed.user_ids.tolist() == given.user_ids.tolist() == [name, "ann"]
    assert given.account.notes == ()
    assert ("encoding" in str(guessed.account)) == (encoding != "utf-8-sig")


def test_bytes_of_another_encoding_far_below_are_named(tmp_path):
    text = b"user,item\n" + b"ann,1\n" * 20_000 + b"Zo\xeb,2\n"
    assert "line 20002: no text in UTF-8: b'Zo\\xeb2'; name its encoding, such as encoding='latin-1'" in (
        refused(tmp_path, text, "a.csv")
    )
    assert "--encoding 'latin-1'" in flagged(tmp_path / "a.csv", Columns())
    assert read(tmp_path, text, "a.csv", encoding="latin-1").user_ids.tolist() == ["Zoë", "ann"]


def zipped(**files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    "zip": lambda content: zipped(events=content),
}


@pytest.mark.parametrize("kind", PACK)
def test_compressed_files_whatever_they_are_called(kind, tmp_path, monkeypatch):
    content = written(",").encode()
    for name in (f"a.csv.{kind}", f"a.{kind}", "a.dat"):
        expected(read(tmp_path, PACK[kind](content), name, **NAMES))
    assert f"a.csv.{kind} cannot be read" in refused(tmp_path, PACK[kind](content)[:-9], f"a.csv.{kind}")
    bomb = PACK[kind](b"user,item\n" + b"ann,7\n" * 100_000)
    monkeypatch.setattr(compressed, "SMALL", 1000)
    assert "to be at most 100 times its" in refused(tmp_path, bomb, f"a.csv.{kind}")


def test_zips_of_several_files_are_refused_by_their_names(tmp_path):
    several = zipped(**{"ratings.csv": "user,item\n1,2\n", "movies.csv": "item\n2\n"})
    assert "Expected one file in" in refused(tmp_path, several, "a.zip")
    assert "got 2: 'ratings.csv', 'movies.csv'; unpack it" in refused(tmp_path, several, "a.zip")
    assert "got 0; unpack it" in refused(tmp_path, zipped(), "a.zip")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("# made in 2026\nuser,item\n#\n1,2\n# 5,6\n3,4\n", {"comment": "#"}),
        ("// a\n1 2\n// b\n3 4\n", {"comment": "//", "user": 0, "item": 1}),
        ("\n\nuser|item\n\n1|2\n   \n3|4\n\n", {"delimiter": "|", "comment": "   "}),
        ("user,item\r\n# x, y, z\r\n1,2\r\n3,4", {"comment": "#"}),
        ("user,item\n'1','2'\n3,4\n", {"quote": "'"}),
        ("item;user;note\n2;1;'a;b'\n4;3;'it''s\nlong'\n", {"quote": "'"}),
        ('user\titem\ttitle\n1\t2\t"12 inch\n3\t4\tx\n', {"quote": ""}),
        ("user  item\n  1    2 \n 3\t4\t\n", {"delimiter": "whitespace"}),
        ('title  user item\n"a  b"  1 2\nx 3   4\n', {}),
        ("user§item\n1§2\n3§4\n", {"delimiter": "§"}),
        ("user<>item\n1<>2\n3<>4\n", {"delimiter": "<>"}),
    ],
)
def test_comments_blank_lines_quotes_and_delimiters(text, options, tmp_path):
    data = read(tmp_path, text, **options)
    assert (data.user_ids.tolist(), data.item_ids.tolist(), data.account.rows) == ([1, 3], [2, 4], 2)


def test_lines_are_counted_with_those_that_are_skipped(tmp_path):
    text = "# a\nuser,item,n\n\n# b\n1,2,3\n3,4,x\n"
    assert "line 6: Expected numbers" in refused(tmp_path, text, value="n", comment="#")
    assert "line 3: Expected 3 columns, got 1: '# b'; comment='#' skips such lines" in refused(
        tmp_path, text[4:] + "# b\n"
    )
    assert "a quote in column 'item' is not closed" in refused(tmp_path, "user,item\n1,'2\n", quote="'")


def test_rows_without_an_id_are_refused_or_dropped_and_counted(tmp_path):
    text = "user,item,n,t\nann,1,4,5\n,2,4,5\nbob,,4,5\nNULL,3,4,5\nbob,2,5,6\n?,7,8,9\n \t,7,8,9\n"
    names = {"value": "n", "time": "t", "delimiter": ","}
    message = refused(tmp_path, text, **names)
    assert "in every row of 'user', got none in line 3 of" in message
    assert "drop such rows, as without_id='drop' does" in message
    assert "as --without-id 'drop' does" in flagged(tmp_path / "a.dat", Columns(value="n"), delimiter=",")
    data = read(tmp_path, text, **names, without_id="drop")
    assert data.user_ids.tolist() == ["?", "ann", "bob"]
    assert data.account.left_out == {"without an id": 4}
    data = read(tmp_path, text, **names, without_id="drop", missing=["?"])
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["ann", "bob"], [1, 2])
    assert data.matrix.toarray().tolist() == [[4, 0], [0, 5]]
    assert str(data.account).startswith("7 rows read, 2 events; left out: 5 without an id")
    whole = read(tmp_path, "user,item\n1.0,2\n,3\n2.0,3\n", without_id="drop")
    assert whole.user_ids.tolist() == [1, 2]
    broken = "user,item,n\n,1,2\n1,2,3\n\nNA,3,4\n4,5,x\n"
    assert "line 6: Expected numbers" in refused(tmp_path, broken, value="n", without_id="drop")


def test_ids_of_other_kinds(tmp_path):
    uuids = ["0b9a1d6e-5c3f-4e2a-9f10-3a5b7c9d1e2f", "f47ac10b-58cc-4372-a567-0e02b2c3d479"]
    text = "user,item\n" + "".join(f"{user},{item}\n" for user, item in zip(uuids, ("1.5", "2.25"), strict=True))
    data = read(tmp_path, text)
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (uuids, ["1.5", "2.25"])
    data = read(tmp_path, "user;item;stars\n7,0;007;4,5\n8;8;3\n", value="stars", decimal=",")
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == ([7, 8], ["007", "8"])
    assert data.matrix.toarray().tolist() == [[4.5, 0], [0, 3]]


@pytest.mark.parametrize("cell", ["007", "0x7", "-07", " 7", "7 ", "7.0", "x", "9223372036854775808", '"07"', "0"])
@pytest.mark.parametrize("at", [0, 2999])
@pytest.mark.parametrize("start", ["", "user,item\n", "\ufeff"])
def test_integers_that_are_written_in_another_way(cell, at, start, tmp_path):
    users = [str(1000 + k) for k in range(3000)]
    users[at] = cell
    text = start + "".join(f"{user},5\n" for user in users)
    options = {"header": "user" in start} | ({} if "user" in start else {"user": 0, "item": 1})
    if cell.strip() != cell:
        message = refused(tmp_path, text, delimiter=",", **options)
        assert f"line {at + 1 + ('user' in start)}: " in message
        return
    found = read(tmp_path, text, delimiter=",", **options).user_ids.tolist()
    if cell in ("0", "7.0"):
        assert found == sorted([int(float(cell)), *map(int, users[:at] + users[at + 1 :])])
    else:
        assert found == sorted(user.strip('"') for user in users)


def test_decimal_commas_are_not_taken_for_points(tmp_path):
    text = "user;item;stars\n1;2;4,5\n2;2;3\n"
    message = refused(tmp_path, text, value="stars")
    assert (
        "line 2: Expected numbers in column 'stars', got string: '4,5'; where , is the decimal mark, decimal=','"
        in message
    )
    assert "where . is the decimal mark, decimal='.'" in (
        refused(tmp_path, text.replace(",", "."), value="stars", decimal=",")
    )
    quoted = read(tmp_path, 'user,item,stars\n1,2,"4,5"\n2,2,"3"\n', "a.csv", value="stars", decimal=",")
    assert quoted.matrix.toarray().tolist() == [[4.5], [3]]


DAY = 86_400.0


@pytest.mark.parametrize(
    ("cells", "time_format", "seconds"),
    [
        (("1500000000", "0"), "seconds", (1.5e9, 0)),
        (("1500000000000", ""), "seconds", (1.5e12, 0)),  # a unit that is given is not inferred
        (("1500", "2500.5"), "milliseconds", (1.5, 2.5005)),
        (("1500000000000000000", "5"), "nanoseconds", (1.5e9, 0)),
        (("02/01/1970 00:00", "3/1/1970 12:30"), "%d/%m/%Y %H:%M", (DAY, 2 * DAY + 45_000)),
        (("19700102", "19700103"), "%Y%m%d", (DAY, 2 * DAY)),
        (("02 Jan 1970", ""), "%d %b %Y", (DAY, 0)),
        (("1970-01-02T01:00:00.500+0100", " "), "%Y-%m-%dT%H:%M:%S.%f%z", (DAY + 0.5, 0)),
    ],
)
def test_times_in_a_format_that_is_given(cells, time_format, seconds, tmp_path):
    text = "user;item;when\n" + "".join(f"1;{item};{cell}\n" for item, cell in enumerate(cells))
    data = read(tmp_path, text, time="when", time_format=time_format)
    assert data.times.toarray()[0].tolist() == pytest.approx(list(seconds), abs=1e-6)


@pytest.mark.parametrize(
    ("cell", "time_format", "message"),
    [
        ("31/02/2020", "%d/%m/%Y", "line 3: Expected a time as '%d/%m/%Y' in column 'when', got '31/02/2020'"),
        ("01/02/2020 x", "%d/%m/%Y", "line 3: Expected a time as"),
        ("32 Jan 1970", "%d %b %Y", "line 3: Expected a time as"),
        ("soon", "seconds", "line 3: Expected times in seconds in column 'when', got 'soon'"),
        ("1e300", "seconds", "line 3: Expected times in seconds in column 'when', got 1e\\+300"),
        ("31.12.2019", None, "line 3: Expected dates or numbers .* name their format, such as time_format='%d/%m/%Y'"),
    ],
)
def test_times_that_do_not_fit_are_named(cell, time_format, message, tmp_path):
    first = {"seconds": "7", "%d %b %Y": "1 Jan 2020", None: "30.12.2019"}.get(time_format, "01/02/2020")
    text = f"user;item;when\n1;2;{first if time_format else ''}\n1;3;{cell}\n"
    with pytest.raises(InvalidDataError, match=message):
        read(tmp_path, text, time="when", time_format=time_format)


def test_behaviours_are_a_column_of_text(tmp_path):
    text = "ann|7|view\nann|9|buy\nbob|7|view\n"
    data = read(tmp_path, text, user=0, item=1, behavior=2, weights={"view": 1, "buy": 5})
    assert data.matrix.toarray().tolist() == [[1, 5], [1, 0]]


def test_options_that_cannot_be_are_named(tmp_path):
    for options, error, message in (
        ({"delimiter": ""}, InvalidParameterError, "delimiter with at least one character"),
        ({"quote": "''"}, InvalidParameterError, "quote as one ASCII character, or none"),
        ({"decimal": "'"}, InvalidParameterError, "decimal as . or ,"),
        ({"without_id": "skip"}, UnknownNameError, "rule for rows without an id called 'skip'"),
        ({"missing": "NA"}, RecvaeError, "missing as words, got 'NA'"),
        ({"header": "no"}, RecvaeError, "header as true or false"),
        ({"encoding": "utf-9"}, RecvaeError, "unknown encoding"),
        ({"format": "table"}, UnknownNameError, "no format called 'table'"),
    ):
        with pytest.raises(error, match=message):
            read(tmp_path, written(","), **options)


def test_formats_are_those_that_the_commands_name(tmp_path):
    from recvae.data.names import FORMATS as NAMED

    assert tuple(FORMATS) == NAMED
    (tmp_path / "a").write_text(written(","))
    for name, kind in (("a.csv.gz", "text"), ("a", "text"), ("a.PARQUET", "parquet"), ("a.tsv", "text")):
        assert kind_of(tmp_path / name, ReadOptions()) == (kind, "")
    assert kind_of(tmp_path, ReadOptions()) == ("parquet", "")
