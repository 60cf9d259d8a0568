"""Decoding JPEG files by torchvision, to Pillow's pixels without its copies."""

import io
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

BEGINNING = b"\xff\xd8"
# Bytes that are looked at for a header; longer ones, of large colour profiles, are left to Pillow.
HEADER = 1 << 17
# Markers (ITU T.81, table B.1): frames that libjpeg decodes, which are baseline, extended and progressive ones, and the scan behind them.
FRAMES, SCAN = (0xC0, 0xC1, 0xC2), 0xDA
# Segments beside which pixels are shown as they are: Huffman and quantization tables, restart interval and comment.
TABLES = (0xC4, 0xDB, 0xDD, 0xFE)
# So are those of applications, but for EXIF and XMP (0xE1), which may turn the picture, several pictures in a file, and damaged segments:
# JFIF's and Adobe's have at least so many bytes.
APPLICATIONS, MULTIPLE, SHORTEST = (0xE0, *range(0xE2, 0xF0)), b"MPF", 14


def read_plain_jpeg(path: str | Path, most: int) -> NDArray[np.uint8] | None:
    """Reads a JPEG whose header holds nothing that needs Pillow, which takes longer to open a file than to read it all.

    Safe in any thread, as it changes nothing that threads share.

    Args:
        path: the file.
        most: pixels that an image may have.

    Returns:
        (H, W, 3) uint8 RGB; None for files of another kind, with EXIF, of other colours, too large, damaged, or not to be read.
    """
    try:
        if not os.path.isfile(path):
            return None
        with io.FileIO(path) as file:
            header = file.read(HEADER)
            size = plain_size(header)
            if size is None or size[0] * size[1] > most:
                return None
            content = bytearray(os.fstat(file.fileno()).st_size)
            content[: len(header)] = header
            file.readinto(memoryview(content)[len(header) :])
        return decode(content, size)
    except (OSError, MemoryError):  # Pillow will say so
        return None


def plain_size(header: bytes) -> tuple[int, int] | None:
    """Returns width and height of a JPEG of three colours; None where its header holds more than pixels need, or is damaged."""
    if not header.startswith(BEGINNING):
        return None
    place, size = len(BEGINNING), None
    while place + 10 <= len(header) and header[place] == 0xFF:
        kind, length = header[place + 1], int.from_bytes(header[place + 2 : place + 4], "big")
        if kind == SCAN:
            return size
        if kind in FRAMES and size is None and (header[place + 4], header[place + 9]) == (8, 3):  # bits and colours
            height, width = (int.from_bytes(header[place + n : place + n + 2], "big") for n in (5, 7))
            size = (width, height)
        elif kind in APPLICATIONS:
            if length < SHORTEST or header.startswith(MULTIPLE, place + 4):
                return None
        elif kind not in TABLES:
            return None
        place += 2 + length
    return None


def decode(content: bytearray, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decodes a JPEG of width and height; None where that does not work."""
    try:
        from torchvision.io import ImageReadMode

        # The operator itself: the function around it warns that later releases leave decoding to others, and threads cannot silence that.
        tensor = torch.ops.image.decode_jpeg(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.RGB.value)
    except (ImportError, AttributeError):  # such a release
        return None
    except RuntimeError:  # damaged, for which Pillow has better words, or torchvision was built without libjpeg
        return None
    pixels: NDArray[np.uint8] = tensor.permute(1, 2, 0).numpy()
    return pixels if pixels.shape[1::-1] == size else None
