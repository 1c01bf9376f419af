"""Read a sheet of an Excel or OpenDocument file; calamine parses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading
from recvae.data.tables.text import check_columns
from recvae.data.tables.text_file import reading
from recvae.errors import InvalidDataError
from recvae.utils.optional import require


def read_excel(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read the named columns of the only sheet that has them; the first row that is not empty has their names.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        If no sheet has the columns, or several.
    MissingDependencyError
        Without python-calamine, which the extra "excel" installs.
    """
    calamine = require("python_calamine", extra="excel", purpose="Reading Excel files")
    with reading(path):
        try:
            book = calamine.CalamineWorkbook.from_path(str(path))
            sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
        except (calamine.CalamineError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise InvalidDataError(f"The file {path} cannot be read: no workbook: {error}.") from error
    wanted = columns.names
    having = [name for name, rows in sheets.items() if set(wanted) <= set(_names(rows)[1])]
    if len(having) != 1:
        first = _names(next(iter(sheets.values()), []))[1]
        got = f"{having} have them" if having else f"none of {list(sheets)} has them; the first has {first}"
        raise InvalidDataError(
            f"Expected one sheet of {path} with the columns {wanted}, but {got}; "
            f"{'keep one of them in a file of its own' if having else 'name its columns'}."
        )
    rows = sheets[having[0]]
    start, names = _names(rows)
    check_columns(wanted, names)
    body = [(number, row) for number, row in enumerate(rows[start + 1 :], start + 2) if any(cell != "" for cell in row)]
    found = {}
    for role, name in vars(columns).items():
        if name is not None:
            at = names.index(str(name))
            found[role] = _column([row[at] for _, row in body], role in ("user", "item"))
    text = ShapedFile(path, lines=lambda: [number for number, _ in body])
    notes = [f"of {len(sheets)} sheets, {having[0]!r} is read"] if len(sheets) > 1 else []
    return checked_reading(text, found, columns, options, notes)


def _names(rows: Sequence[Sequence[Any]]) -> tuple[int, list[str]]:
    """Index of the first row that is not empty, and its cells as names."""
    for index, row in enumerate(rows):
        if any(cell != "" for cell in row):
            return index, [_text(cell).strip() for cell in row]
    return 0, []


def _column(cells: Sequence[Any], is_id: bool) -> pa.ChunkedArray:
    """Cells as numbers or dates if all are such, else as text; numbers without a fraction are written as integers."""
    cells = [None if isinstance(cell, str) and not cell.strip() else cell for cell in cells]
    kinds = {type(cell) for cell in cells if cell is not None}
    if is_id or not (kinds <= {int, float} or str not in kinds):
        texts = [None if cell is None else _text(cell) for cell in cells]
        array = pa.array(texts, pa.string())
        return pa.chunked_array([array.dictionary_encode() if is_id else array])
    return pa.chunked_array([pa.array(cells, pa.float64() if kinds <= {int, float} else None)])


def _text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
