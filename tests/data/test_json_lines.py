"""Plain JSON lines are read by pyarrow, the others by msgspec: with the same values and the same refusals."""

import pytest

from recvae.data.tables import json_files
from recvae.data.tables.options import Columns, ReadOptions
from recvae.errors import InvalidDataError

PLAIN = {
    "text and integers": b'{"u":"a","i":1}\n{"u":"b","i":2}\n',
    "no line break at the end": b'{"u":"a","i":1}\n{"u":"b","i":2}',
    "Windows": b'{"u":"a","i":1}\r\n{"u":"b","i":2}\r\n',
    "a byte order mark": b'\xef\xbb\xbf{"u":"a","i":1}\n{"u":"b","i":2}\n',
    "numbers as text": b'{"u":"7","i":"007"}\n{"u":"8","i":"7"}\n',
    "whole floats": b'{"u":1,"i":1.0}\n{"u":2,"i":2.0}\n',
    "other keys": b'{"u":"a","i":1,"x":{"u":3}}\n{"i":2,"u":"b"}\n',
    "escapes": b'{"u":"a\\u00e9\\n","i":1}\n{"u":"b","i":2}\n',
    "values": b'{"u":"a","i":1,"v":1.5}\n{"u":"b","i":2,"v":2}\n',
    "a fraction": b'{"u":1,"i":1}\n{"u":2,"i":2.5}\n',
    "a word for none": b'{"u":"a","i":1}\n{"u":"NA","i":2}\n',
    "an empty id": b'{"u":"a","i":1}\n{"u":"","i":2}\n',
    "a value is missing": b'{"u":"a","i":1,"v":1}\n{"u":"b","i":2}\n',
}
OTHERS = {
    "a key twice": b'{"u":"a","i":1,"u":"c"}\n{"u":"b","i":2}\n',
    "two objects in a line": b'{"u":"a","i":1}{"u":"b","i":2}\n',
    "an object over two lines": b'{"u":"a",\n"i":1}\n{"u":"b","i":2}\n',
    "a blank line": b'{"u":"a","i":1}\n\n{"u":"b","i":2}\n',
    "no UTF-8": b'{"u":"a","i":1}\n{"u":"\xff","i":2}\n',
    "text and numbers": b'{"u":"a","i":1}\n{"u":7,"i":2}\n',
    "a user is missing": b'{"u":"a","i":1}\n{"i":2}\n',
    "a line without an object": b'{"u":"a","i":1}\nnull\n',
    "a list": b'{"u":"a","i":1}\n{"u":"b","i":[1,2]}\n',
    "a large number": b'{"u":"a","i":1}\n{"u":"b","i":99999999999999999999}\n',
    "a number becomes text": b'{"u":"a","i":1,"v":1}\n{"u":"b","i":2,"v":"3"}\n',
    "cut": b'{"u":"a","i":1}\n{"u":"b","i":2',
    "NaN": b'{"u":"a","i":1,"x":NaN}\n{"u":"b","i":2}\n',
    "half a pair": b'{"u":"a","i":1}\n{"u":"\\ud800","i":2}\n',
}


def outcome(path, **options):
    columns = Columns("u", "i", value="v" if b'"v"' in path.read_bytes() else None)
    try:
        return json_files.read_json(path, columns, ReadOptions(**options)).table.to_pylist()
    except InvalidDataError as error:
        return str(error)


@pytest.mark.parametrize("options", [{}, {"without_id": "drop"}], ids=str)
@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_both_readers_say_the_same(name, options, tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    path.write_bytes((PLAIN | OTHERS)[name])
    plain = []

    def read(*arguments):
        plain.append(read_plain(*arguments))
        return plain[-1]

    read_plain = json_files.read_plain_lines
    monkeypatch.setattr(json_files, "read_plain_lines", read)
    fast = outcome(path, **options)
    monkeypatch.setattr(json_files, "read_plain_lines", lambda *arguments: None)
    assert fast == outcome(path, **options)
    assert any(found is not None for found in plain) == (name in PLAIN)
