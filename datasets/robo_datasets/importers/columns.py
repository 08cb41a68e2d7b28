"""Low-dimensional columns of LeRobot parquet files, read bit-exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robo_core.errors import ImportSourceError
from robo_datasets.store.unreadable import why_unreadable


class ColumnSpec(TypedDict):
    """Shape of a row and type of a column."""

    shape: Sequence[int]
    dtype: str


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file.

    Raises:
        ImportSourceError: it is missing, truncated, lacks a column, or has one twice.
    """
    if not path.is_file():
        raise ImportSourceError(f"{path} is missing")
    # Not pq.read_table: it brings in pyarrow.dataset, and with that pandas where it is installed, in every worker.
    with _reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        _check_names(path, names if columns is None else columns, names)
        table = file.read(columns=columns, use_threads=False)
        return table if columns is None else table.select(columns)


def read_row_range(path: Path, columns: list[str], start: int, length: int) -> pa.Table:
    """Read rows [start, start + length) of a parquet file, touching only the row groups that hold them.

    Raises:
        ImportSourceError: the file is missing, truncated, shorter, lacks a column, or has one twice.
    """
    metadata = _metadata(path)
    _check_names(path, columns, metadata.schema.to_arrow_schema().names)
    groups: list[int] = []
    first = seen = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if seen < start + length and seen + rows > start:
            first = first if groups else seen
            groups.append(number)
        seen += rows
    if seen < start + length:
        raise ImportSourceError(f"{path} has {seen} rows, {start + length} are needed")
    with _reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read_row_groups(groups, columns=columns, use_threads=False)
    return table.slice(start - first, length)


def _check_names(path: Path, wanted: list[str], names: list[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ImportSourceError(f"{path} lacks the columns {missing}; it has {names}")
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise ImportSourceError(f"{path} has the column {twice} twice; which of them is meant nothing says")


def parquet_schema(path: Path) -> pa.Schema:
    """The schema of a parquet file.

    Raises:
        ImportSourceError: it is missing, truncated or not parquet.
    """
    with _reading(path):
        return _metadata(path).schema.to_arrow_schema()


def parquet_rows(path: Path) -> int:
    """Number of rows of a parquet file, from its footer.

    Raises:
        ImportSourceError: it is missing, truncated or not parquet.
    """
    return int(_metadata(path).num_rows)


def _metadata(path: Path) -> pq.FileMetaData:
    if not path.is_file():
        raise ImportSourceError(f"{path} is missing")
    with _reading(path):
        return pq.read_metadata(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Arrow's errors for damaged files, which are of many kinds, as one of ours."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, ImportSourceError):
            raise
        why = why_unreadable(path, f"is truncated or not a parquet file: {_first_line(error)}")
        raise ImportSourceError(f"{path} {why}") from error


def column_array(table: pa.Table, key: str, entry: ColumnSpec, where: str, rounded: bool = False) -> np.ndarray:
    """A column as (T, *shape) of the feature's dtype; single missing numbers of a float column are NaN.

    ``rounded`` takes floats of more bits than declared, rounded, where they are within the range of the declared type.

    Raises:
        ImportSourceError: the column has another type or shape, or misses values; names ``where`` and key.
    """
    shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
    column = _plain(table[key].combine_chunks())
    if isinstance(column, pa.ChunkedArray):
        column = _plain(pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type))
    column = _with_nan_rows(column, int(np.prod(shape)), dtype, key, where)
    values = column
    while _is_list(values.type):
        if values.null_count:
            raise ImportSourceError(f"{where}: column {key} has missing values")
        values = values.flatten()
    if values.null_count and (dtype.kind != "f" or values.null_count == len(values)):
        raise ImportSourceError(f"{where}: column {key} has missing values, the first {_first_hole(values)}")
    rows, size = len(column), int(np.prod(shape))
    if len(values) != rows * size:
        raise ImportSourceError(f"{where}: column {key} does not hold {list(shape)} values a frame")
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise ImportSourceError(f"{where}: column {key} is {values.type}, the dataset declares {dtype}")
    if values.null_count and pa.types.is_integer(values.type):
        values = values.cast(pa.float64())
    array = _numbers(values)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if rounded and array.dtype.kind == dtype.kind == "f" and not (np.isinf(converted) & np.isfinite(array)).any():
        array = converted
    if array.dtype != dtype and not np.array_equal(
        array, converted.astype(array.dtype), equal_nan=array.dtype.kind == "f"
    ):
        raise ImportSourceError(f"{where}: column {key} is {array.dtype} and does not fit in the declared {dtype}")
    _check_rows(column, size, where, key)
    return converted.reshape(rows, *shape)


def _numbers(values: pa.Array) -> np.ndarray:
    """A flat array of numbers or truth values, (n,); missing ones are NaN.

    Arrow's ``to_numpy`` loads pandas where it is installed, which takes a worker longer than an episode.
    """
    kind, count, start = values.type, len(values), values.offset
    if values.null_count or not count:
        return values.to_numpy(zero_copy_only=False)
    data = values.buffers()[1]
    if pa.types.is_boolean(kind):  # eight a byte
        return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[start : start + count].astype(bool)
    letter = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    dtype = np.dtype(f"{letter}{kind.bit_width // 8}")
    return np.frombuffer(data, dtype, count, start * dtype.itemsize)


def time_stamps(table: pa.Table, where: str, key: str = "timestamp") -> np.ndarray:
    """A column of seconds, (T,) f64.

    Raises:
        ImportSourceError: it has another form, or a time is missing or not finite; names ``where`` and the row.
    """
    stamps = column_array(table, key, {"shape": (), "dtype": "float64"}, where)
    wrong = np.flatnonzero(~np.isfinite(stamps))
    if len(wrong):
        raise ImportSourceError(f"{where}: the {key} of row {wrong[0]} is missing or not finite")
    return stamps


def float_bits(kind: pa.DataType) -> int:
    """Bits of the floats in a column, also in lists; 0 for anything else."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    while _is_list(kind):
        kind = kind.value_type
    return int(kind.bit_width) if pa.types.is_floating(kind) else 0


def column_with_holes(table: pa.Table, key: str) -> int:
    """How many values of a column are missing: rows, and numbers within rows."""
    values = _plain(table[key].combine_chunks())
    count = 0
    while True:
        count += values.null_count
        if not _is_list(values.type):
            return int(count)
        values = values.flatten()


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column of a type that another library has registered (LeRobot's arrays) as the lists it is kept in."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _first_hole(values: pa.Array) -> str:
    return f"at value {int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])}"


def _with_nan_rows(column: pa.Array, size: int, dtype: np.dtype, key: str, where: str) -> pa.Array:
    """A column of vectors whose missing rows are rows of NaN; other columns as they are."""
    if not _is_list(column.type) or not column.null_count:
        return column
    if dtype.kind != "f" or _is_list(column.type.value_type) or column.null_count == len(column):
        raise ImportSourceError(f"{where}: column {key} has missing values, the first in row {_first_hole(column)[9:]}")
    filled = [[None] * size if row is None else row for row in column.to_pylist()]
    return pa.array(filled, pa.list_(column.type.value_type))


def _check_rows(column: pa.Array, size: int, where: str, key: str) -> None:
    """Every row must have the same number of values: a short row would shift all that follow."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        inner = column.type.value_type
        nested = pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner)
        lengths = np.diff(_numbers(column.offsets))
        if len(lengths) and (lengths.min() != lengths.max() or (not nested and lengths[0] != size)):
            raise ImportSourceError(f"{where}: column {key} has rows of different lengths")


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
