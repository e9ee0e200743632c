"""Tables of which every value comes back as it was written.

They are CSV files with one rule more: text stands in quotes, and a bare cell is a number, True,
False, or empty where there is nothing. A cell that was written is copied from then on, as it stands
in the file. Bare text is read too, because other programs write it without quotes.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pandas
from filelock import FileLock

from .errors import DataError, SearchError
from .files import is_file, write_atomically

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: The column that tells rows apart.
KEY = "configuration"
#: The cells of a row by their columns, as they stand in the file.
Row = dict[str, str]
# A cell, in quotes or bare, and what ends it.
_CELL = re.compile(r'("[^"]*(?:""[^"]*)*"|[^",\r\n]*)(,|\r?\n)')


def cells(values: Mapping[str, Any]) -> Row:
    """Write values as cells.

    Raises:
        SearchError: if a value is not text, a number, a bool or None, of Python or NumPy.
    """
    return {name: _cell(name, value) for name, value in values.items()}


def read_rows(path: Path) -> dict[str, Row]:
    """Read the rows of a table by their configurations; a file that is not there has none.

    Raises:
        DataError: if the file is not a table, or its name does not end in ``.csv`` or ``.csv.gz``.
    """
    if not path.name.endswith((".csv", ".csv.gz")):
        raise DataError(f"a table is a CSV file, and {path} does not end in .csv or .csv.gz")
    if not is_file(DataError, path):
        return {}
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a table: {error}") from error
    text += "" if text.endswith("\n") else "\n"
    lines: list[list[str]] = [[]]
    at = 0
    while match := _CELL.match(text, at):
        cell, end = match.groups()
        lines[-1].append(cell)
        if end != ",":
            lines.append([])
        at = match.end()
    names, *rest = lines[:-1] or [[]]
    columns = [_text(name) for name in names]
    rows = [dict(zip(columns, line, strict=False)) for line in rest]
    keys = [_text(row.get(KEY, "")) for row in rows]
    even = at == len(text) and {len(line) for line in [names, *rest]} == {len({*columns})}
    if not even or KEY not in columns or not all(keys) or len({*keys}) < len(keys):
        raise DataError(
            f"{path} is not a table of a sweep: each row needs a {KEY!r} of its own, and a cell "
            f"for each column. Give another path, or move this file away"
        )
    return dict(zip(keys, rows, strict=True))


def add_rows(path: Path, rows: Mapping[str, Row]) -> dict[str, Row]:
    """Add the rows that a table lacks, and give all that it then holds.

    Only one process at a time does so. It holds a lock on the empty file ``.NAME.lock`` beside the
    table, which the system frees if the process is killed.

    Raises:
        DataError: if the file is not a table.
        OSError: if nothing can be written there.
    """
    real = Path(os.path.realpath(path))  # one lock, by whichever link the table is reached
    with FileLock(real.with_name(f".{real.name}.lock")).acquire(poll_interval=0.01):
        table = read_rows(path)
        if rows.keys() - table.keys():
            table |= {key: row for key, row in rows.items() if key not in table}
            names = _names(table)
            lines = [[_cell(name, name) for name in names]]
            lines += [[row.get(name, "") for name in names] for row in table.values()]
            data = "".join(",".join(line) + "\n" for line in lines).encode()
            data = gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
            write_atomically(DataError, real, data)
    return table


def to_frame(table: Mapping[str, Row], keys: Iterable[str]) -> DataFrame:
    """Give some rows of a table as a data frame with all columns of the table.

    A column has the type that pandas gives to such values; there an empty cell beside numbers is
    NaN. Where that would change a value, as it rounds large integers beside an empty cell, the
    column holds Python objects.
    """
    rows = [table[key] for key in keys]
    return pandas.DataFrame(
        {name: _column([_value(row.get(name, "")) for row in rows]) for name in _names(table)}
    )


def _names(table: Mapping[str, Row]) -> list[str]:
    return list(dict.fromkeys(name for row in table.values() for name in row)) or [KEY]


def _column(values: list[Any]) -> Series:
    usual, exact = pandas.Series(values), pandas.Series(values, dtype=object)
    there = exact.notna()
    return usual if (usual[there] == exact[there]).all() else exact


def _cell(name: str, value: Any) -> str:
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None:
        return ""
    for kind in (bool, int, float):  # in this order, because a bool is an int
        if isinstance(value, kind):
            return repr(kind(value))
    if isinstance(value, str) and value.encode(errors="ignore").decode() == value:
        return '"' + value.replace('"', '""') + '"'
    raise SearchError(
        f"the column {name!r} is given {value!r:.200} of type {type(value).__name__}, and a table "
        f"holds text, numbers, bools and None: convert it, as by .item() or json.dumps()"
    )


def _text(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _value(cell: str) -> Any:
    if cell in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[cell]
    if not cell.startswith('"'):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(cell)
    return _text(cell)
