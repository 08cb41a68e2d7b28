"""The Zarr v3 metadata files of a demo store, written by hand so that writers need no zarr call."""

from __future__ import annotations

import json
from collections.abc import Mapping

from robo_datasets.store.features import Feature

_CRC32C = {"name": "crc32c"}
_LITTLE: dict[str, object] = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD_LEVEL = 3


def group_json(attributes: Mapping[str, object] | None = None) -> bytes:
    """``zarr.json`` of a group."""
    return _dump({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})})


def array_json(feature: Feature, length: int) -> bytes:
    """``zarr.json`` of an episode's array: ``length`` rows of the feature."""
    shape = [length, *feature.shape]
    codecs = _frame_codecs(feature) if feature.is_frames else [_bytes_codec(feature.dtype), _CRC32C]
    return _dump(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": feature.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": False if feature.dtype == "bool" else 0,
            "codecs": codecs,
            "attributes": {} if feature.names is None else {"names": feature.names},
        }
    )


def chunk_name(feature: Feature) -> str:
    """File name of the array's single chunk (or shard)."""
    return ".".join(["c", *["0"] * (1 + len(feature.shape))])


def _frame_codecs(feature: Feature) -> list[dict[str, object]]:
    if feature.codec == "jpeg":
        configuration = {"quality": feature.quality, "subsampling": feature.subsampling}
        inner: list[dict[str, object]] = [{"name": "robo_jpeg", "configuration": configuration}]
    elif feature.codec == "raw":
        inner = [_bytes_codec(feature.dtype)]
    else:
        zstd: dict[str, object] = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}
        inner = [_bytes_codec(feature.dtype), zstd]
    sharding = {
        "chunk_shape": [1, *feature.shape],
        "codecs": [*inner, _CRC32C],
        "index_codecs": [_LITTLE, _CRC32C],
        "index_location": "end",
    }
    return [{"name": "sharding_indexed", "configuration": sharding}]


def _bytes_codec(dtype: str) -> dict[str, object]:
    return {"name": "bytes"} if dtype in ("bool", "uint8", "int8") else _LITTLE


def _dump(document: dict[str, object]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
