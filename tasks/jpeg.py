"""Decoding JPEG files by torchvision, to Pillow's pixels without its copies."""

import io
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

BEGINNING = b"\xff\xd8"
# Frames that libjpeg decodes: baseline, extended and progressive ones (ITU T.81, table B.1).
FRAMES = (0xC0, 0xC1, 0xC2)
# Segments beside which pixels are shown as they are: Huffman and quantization tables, restart interval, comment, and what applications
# write, but for EXIF and XMP (0xE1), which may turn the picture.
PLAIN = (0xC4, 0xDB, 0xDD, 0xFE, 0xE0, *range(0xE2, 0xF0))
MULTIPLE = b"MPF"  # a colour profile's segment is also that of files of several pictures


def read_plain_jpeg(path: str | Path, most: int) -> NDArray[np.uint8] | None:
    """Reads a JPEG whose header holds nothing that needs Pillow, which takes longer to open a file than to read it all.

    Args:
        path: the file.
        most: pixels that an image may have.

    Returns:
        (H, W, 3) uint8 RGB; None for files of another kind, with EXIF, of other colours, too large, or damaged.

    Raises:
        OSError: the file cannot be read.
    """
    with io.FileIO(path) as file:
        if file.read(len(BEGINNING)) != BEGINNING:
            return None
        content = bytearray(os.fstat(file.fileno()).st_size)
        file.seek(0)
        file.readinto(content)
    size = plain_size(content)
    return None if size is None or size[0] * size[1] > most else decode(content, size)


def plain_size(content: bytes | bytearray) -> tuple[int, int] | None:
    """Returns width and height of a JPEG of three colours; None where its header holds more than pixels need, or is damaged."""
    place = len(BEGINNING)
    while place + 10 <= len(content) and content[place] == 0xFF:
        kind, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if kind in FRAMES:
            bits, colours = content[place + 4], content[place + 9]
            height, width = (int.from_bytes(content[place + n : place + n + 2], "big") for n in (5, 7))
            return (width, height) if (bits, colours) == (8, 3) else None
        if kind not in PLAIN or content[place + 4 : place + 7] == MULTIPLE:
            return None
        place += 2 + length
    return None


def decode(content: bytearray, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decodes a JPEG of width and height; None where that does not work."""
    try:
        from torchvision.io import ImageReadMode

        # The operator itself: the function around it warns that later releases leave decoding to others, and threads cannot silence that.
        tensor = torch.ops.image.decode_jpeg(torch.frombuffer(content, dtype=torch.uint8), ImageReadMode.RGB.value)
    except (ImportError, AttributeError):  # such a release, or one built without libjpeg
        return None
    except RuntimeError:  # damaged, for which Pillow has better words
        return None
    pixels: NDArray[np.uint8] = tensor.permute(1, 2, 0).numpy()
    return pixels if pixels.shape[1::-1] == size else None
