"""Tables in Python: lists, Arrow, pandas, polars, Hugging Face datasets. The last three are never imported.

Frames are read through the Arrow PyCapsule interface (`__arrow_c_stream__`). Hugging Face data sets do not have it
(version 5.2), so they are asked for Arrow tables in their own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.batches import ROWS, arrow_faults, check_columns, check_schema
from headstart.errors import DataError, InputError
from headstart.source import IMAGE_COLUMN, Source

NAME = "memory"
SPLIT = "split"
_ODD = "this table cannot be read"
_INDEX = "__index_level_"  # what pandas calls its index in Arrow


def read(data: object) -> Source:
    """A source of a table in memory. Raises DataError with the row of what cannot be read, InputError for other things.

    A list of texts has the column `text` (of pictures as bytes: `image`); a list of pairs with a label has `label` too; a
    list of dicts has their keys.
    """
    if isinstance(data, Mapping) and data and all(_is_table(part) for part in data.values()):
        return _splits(data)
    if _is_table(data):
        return _table(data)
    if isinstance(data, Mapping):
        if not data or not all(isinstance(v, list | tuple | np.ndarray) for v in data.values()):
            raise InputError("A dict of data has column names as keys and lists as values.")
        with arrow_faults(NAME, _ODD):
            return _table(pa.table({str(k): _column(list(v)) for k, v in data.items()}))
    if isinstance(data, np.ndarray) and data.ndim == 1:
        data = data.tolist()
    if isinstance(data, list | tuple):
        return _list(data)
    raise InputError(
        f"Data of type {type(data).__name__} cannot be read. Give a path, a list of texts, of (text, label) pairs or of"
        " dicts, an Arrow table, a pandas or polars frame, or a Hugging Face data set."
    )


def _is_table(data: object) -> bool:
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__") or _is_hugging_face(data)


def _is_hugging_face(data: object) -> bool:
    return hasattr(data, "with_format") and hasattr(data, "features") and hasattr(data, "iter")


def _table(data: Any) -> Source:
    notes: list[str] = []
    with arrow_faults(NAME, _ODD):
        schema, batches = _hugging_face(data) if _is_hugging_face(data) else _arrow(data)
    columns = tuple(c for c in check_schema(NAME, schema) if not c.startswith(_INDEX))
    if len(columns) < len(schema):
        notes.append("the index of the frame is left out")

    def stream() -> Iterator[pa.RecordBatch]:
        with arrow_faults(NAME, _ODD):
            for batch in batches():
                yield batch if batch.schema.names == list(columns) else batch.select(list(columns))

    rows = len(data) if hasattr(data, "__len__") else None
    return Source(name=NAME, columns=columns, batches=stream, digest=lambda: None, rows=rows, notes=notes)


def _arrow(data: Any) -> tuple[pa.Schema, Callable[[], Iterator[pa.RecordBatch]]]:
    if isinstance(data, pa.RecordBatchReader):
        return data.schema, lambda: iter(data)
    if isinstance(data, pa.Array):
        data = pa.chunked_array([data])
    if not isinstance(data, pa.ChunkedArray | pa.Table):
        try:
            data = pa.table(data)
        except (pa.ArrowInvalid, TypeError):  # a series: a stream of one column, not of a table
            data = pa.chunked_array(data)
    table = pa.table({"text": data}) if isinstance(data, pa.ChunkedArray) else data
    return table.schema, lambda: iter(table.to_batches())


def _hugging_face(data: Any) -> tuple[pa.Schema, Callable[[], Iterator[pa.RecordBatch]]]:
    tables = data.with_format("arrow")
    first = next(iter(tables.iter(batch_size=1)), None)
    if first is None:
        raise DataError("there are no rows.", file=NAME)

    def batches() -> Iterator[pa.RecordBatch]:
        for table in tables.iter(batch_size=ROWS):
            for batch in table.to_batches():
                yield batch.replace_schema_metadata(first.schema.metadata)

    return first.schema, batches


def _splits(data: Mapping[Any, Any]) -> Source:
    """Several tables, such as a Hugging Face DatasetDict: the name of each becomes the column `split`."""
    parts = {str(name): _table(table) for name, table in data.items()}
    columns = next(iter(parts.values())).columns
    for name, part in parts.items():
        if part.columns != columns:
            raise DataError(
                f"the columns of {name!r} are {', '.join(part.columns)}, of the first {', '.join(columns)}.", file=NAME
            )
    if SPLIT in columns:
        names, add = columns, False
    else:
        names, add = (*columns, SPLIT), True

    def stream() -> Iterator[pa.RecordBatch]:
        for name, part in parts.items():
            for batch in part.batches():
                yield batch.append_column(SPLIT, pa.array([name] * batch.num_rows, pa.large_string())) if add else batch

    return Source(name=NAME, columns=names, batches=stream, digest=lambda: None)


def _list(data: Sequence[Any]) -> Source:
    if not data:
        raise DataError("there are no rows.", file=NAME)
    kind = _kind(data[0], 1)
    for row, item in enumerate(data, 1):
        if _kind(item, row) != kind:
            raise DataError(f"this is {_kind(item, row)}, but the first row is {kind}.", file=NAME, row=row)
    if kind == "a text":
        columns: dict[str, list[Any]] = {"text": list(data)}
    elif kind == "a picture":
        columns = {IMAGE_COLUMN: list(data)}
    elif kind.startswith("a pair"):
        first = IMAGE_COLUMN if kind.endswith("picture") else "text"
        columns = {first: [pair[0] for pair in data], "label": [pair[1] for pair in data]}
    else:
        names = check_columns(NAME, _keys(data))
        columns = {name: [item.get(name) for item in data] for name in names}
    arrays = [_array(values, name) for name, values in columns.items()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    return Source(name=NAME, columns=tuple(columns), batches=lambda: iter([batch]), digest=lambda: None, rows=len(data))


def _kind(item: Any, row: int) -> str:
    if item is None or isinstance(item, str) or (isinstance(item, float) and item != item):
        return "a text"
    if isinstance(item, bytes):
        return "a picture"
    if isinstance(item, list | tuple) and len(item) == 2 and (item[0] is None or isinstance(item[0], str)):
        return "a pair"
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], bytes):
        return "a pair with a picture"
    if isinstance(item, Mapping):
        return "a dict"
    raise DataError(
        f"a row of type {type(item).__name__} is neither a text or a picture (bytes), nor a pair of one and its label, nor a dict.",
        file=NAME,
        row=row,
    )


def _keys(data: Iterable[Mapping[Any, Any]]) -> list[str]:
    names: dict[Any, None] = {}
    for row, item in enumerate(data, 1):
        for key in item:
            if not isinstance(key, str):
                raise DataError(f"the key {key!r} is not a text.", file=NAME, row=row)
            names[key] = None
    return list(names)


def _array(values: list[Any], column: str) -> pa.Array:
    try:
        return _column(values)
    except UnicodeEncodeError:
        for row, value in enumerate(values, 1):
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, str) and not _encodable(part):
                    raise DataError(
                        "half of a surrogate pair (U+D800 to U+DFFF) is not a character.",
                        file=NAME,
                        row=row,
                        column=column,
                    ) from None
        raise
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"its values cannot stand in one column: {error}.", file=NAME, column=column) from None


def _column(values: list[Any]) -> pa.Array:
    """One Arrow array: texts, numbers or lists. Sets are lists in order; text mixed with numbers is text."""
    values = [_simple(value) for value in values]
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.large_string())
    if kinds == {list}:
        inner = {type(item) for value in values if value for item in value}
        if inner <= {str}:
            return pa.array(values, pa.large_list(pa.large_string()))
        if str in inner:
            return pa.array([None if v is None else [str(i) for i in v] for v in values])
        return pa.array(values)
    if str in kinds and kinds <= {str, int, float, bool}:
        return pa.array([None if v is None else str(v) for v in values], pa.large_string())
    return pa.array(values, pa.float64() if kinds == {int, float} else None)


def _simple(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, str):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
