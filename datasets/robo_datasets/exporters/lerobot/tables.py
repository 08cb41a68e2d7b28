"""Arrow tables of a LeRobot v3.0 dataset: frames, episodes, names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_PART = ".part"


def rows_array(rows: np.ndarray) -> pa.Array:
    """(T, *shape) rows as an Arrow array: numbers for one value a row, fixed lists for vectors, else lists of lists."""
    length, shape = len(rows), rows.shape[1:]
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    if int(np.prod(shape)) == 1 and len(shape) < 2:
        return flat
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, shape[0])
    for depth in reversed(range(len(shape))):
        count = length * int(np.prod(shape[:depth]))
        offsets = np.arange(count + 1, dtype=np.int32) * shape[depth]
        flat = pa.ListArray.from_arrays(pa.array(offsets), flat)
    return flat


def image_array(encoded: Sequence[bytes]) -> pa.Array:
    """Encoded images in the form of Hugging Face's ``Image`` feature: {bytes, path}."""
    return pa.StructArray.from_arrays(
        [pa.array(encoded, pa.binary()), pa.nulls(len(encoded), pa.string())], names=["bytes", "path"]
    )


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _PART)
    pq.write_table(table, part, compression="snappy")
    part.replace(path)


def names_table(names: Sequence[str], column: str) -> pa.Table:
    """Names with their numbers, as pandas writes a frame that is indexed by the names: LeRobot looks them up so."""
    index = "__index_level_0__"
    table = pa.table({column: pa.array(range(len(names)), pa.int64()), index: pa.array(names, pa.string())})
    described = {
        "index_columns": [index],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [
            {"name": column, "field_name": column, "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
            {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def episodes_table(rows: Sequence[Mapping[str, object]], types: Mapping[str, pa.DataType]) -> pa.Table:
    """Rows of meta/episodes; columns in ``types`` keep their type where all of their values are missing."""
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    return pa.table(columns)
