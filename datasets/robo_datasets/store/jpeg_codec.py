"""``robo_jpeg``: a Zarr v3 codec that keeps one frame per chunk as JPEG.

Registered through the ``zarr.codecs`` entry point, so plain ``zarr.open`` decodes a demo store wherever robo-rm is
installed. Our own reader does not go through here; it decodes from the memory map.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON

from robo_core.errors import CorruptionError, StoreError
from robo_datasets.store.jpeg import DEFAULT_QUALITY, DEFAULT_SUBSAMPLING, decode_frame, frame_encoder

CODEC_NAME = "robo_jpeg"


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """Encode a chunk of shape (1, H, W, 3) or (1, H, W, 1), uint8 RGB or grey, as one JPEG stream.

    Raises:
        StoreError: quality or subsampling out of range, or a chunk of another shape or type.
        CorruptionError: the stored bytes are no JPEG of the chunk's shape.
    """

    is_fixed_size = False

    quality: int = DEFAULT_QUALITY
    subsampling: str = DEFAULT_SUBSAMPLING

    def __post_init__(self) -> None:
        frame_encoder(self.quality, self.subsampling)  # validates both settings

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Build the codec from its entry in an array's metadata."""
        return cls(**cast(dict[str, Any], data.get("configuration", {})))

    def to_dict(self) -> dict[str, JSON]:
        """The codec's entry in an array's metadata."""
        configuration: dict[str, JSON] = {"quality": self.quality, "subsampling": self.subsampling}
        return {"name": CODEC_NAME, "configuration": configuration}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Unknown before encoding: always raises ``NotImplementedError``, as zarr's compressors do."""
        raise NotImplementedError

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        data = np.frombuffer(chunk_data.to_bytes(), np.uint8)
        frame = await asyncio.to_thread(decode_frame, data, chunk_spec.shape[-1])
        if frame.size != np.prod(chunk_spec.shape):
            raise CorruptionError(f"a JPEG frame is {frame.shape}, the array says {chunk_spec.shape}")
        return chunk_spec.prototype.nd_buffer.from_numpy_array(frame.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        chunk = np.ascontiguousarray(chunk_data.as_numpy_array())
        shape = chunk.shape
        if chunk.dtype != np.uint8 or len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
            raise StoreError(
                f"{CODEC_NAME} keeps uint8 chunks of shape (1, H, W, 3) or (1, H, W, 1), not {shape} {chunk.dtype}"
            )
        data = await asyncio.to_thread(frame_encoder(self.quality, self.subsampling), chunk[0])
        return chunk_spec.prototype.buffer.from_bytes(data)
