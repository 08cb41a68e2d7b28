"""Sizes of compressed images from their headers, without decoding."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from robo_hw.observation.image_header import ImageHeader, ImageHeaderError, read_header


def encoded(extension: str, width: int, height: int, *options: int) -> bytes:
    rgb = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(extension, rgb, list(options))[1].tobytes()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (128, 96), (640, 480), (3840, 2160)])
@pytest.mark.parametrize(
    ("extension", "options"),
    [
        (".png", ()),
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    ],
)
def test_the_header_says_what_the_decoder_would(extension, options, width, height):
    header = read_header(encoded(extension, width, height, *options))
    assert header == ImageHeader("png" if extension == ".png" else "jpeg", width, height)


def test_a_small_file_that_claims_a_huge_image_is_seen_through():
    rows = zlib.compress(bytes(14_000 * 14_001), 9)
    header = struct.pack(">IIBBBBB", 14_000, 14_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert len(rows) < 1_000_000
    assert read_header(b"\x89PNG\r\n\x1a\n" + chunk + rows) == ImageHeader("png", 14_000, 14_000)


def test_segments_before_the_size_are_skipped():
    image = encoded(".jpg", 40, 30)
    exif = b"\xff\xe1" + struct.pack(">H", 60_002) + bytes(60_000)
    assert read_header(image[:2] + exif + b"\xff\xff\xff" + image[3:]) == ImageHeader("jpeg", 40, 30)


def test_every_truncation_and_other_formats_are_refused_or_read_the_same():
    for extension in (".jpg", ".png"):
        whole = encoded(extension, 20, 10)
        for end in range(len(whole)):
            try:
                assert read_header(whole[:end]) == read_header(whole)
            except ImageHeaderError:
                assert end < 700
    for extension in (".bmp", ".webp", ".tiff"):
        with pytest.raises(ImageHeaderError, match="neither JPEG nor PNG"):
            read_header(encoded(extension, 20, 10))


def test_random_bytes_behind_a_magic_number_never_do_more_than_be_refused():
    random = np.random.default_rng(1)
    for _ in range(3000):
        magic = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")[int(random.integers(2))]
        data = magic + random.integers(0, 256, int(random.integers(0, 200)), np.uint8).tobytes()
        try:
            header = read_header(data)
        except ImageHeaderError:
            continue
        assert min(header.width, header.height) > 0


def test_a_size_of_zero_is_refused():
    image = bytearray(encoded(".png", 8, 8))
    image[16:20] = bytes(4)
    with pytest.raises(ImageHeaderError, match="0 x 8"):
        read_header(bytes(image))
