"""Images that are decoded and reduced once, for all the epochs and runs after."""

import logging
import os
import struct
import tempfile
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from tasks.images import RGBImage, read_annotated

log = logging.getLogger("lightning.pytorch")

CacheFormat = Literal["jpeg", "raw"]

# An entry is this header (a mark, the original's height and width, and a checksum of the rest), and the reduced image.
HEADER = struct.Struct("<8sIII")
# A change of what entries hold changes this mark.
MARK = b"mobtap01"
# Of JPEG, in 1..100: at 95, twice the bytes of the usual 75, the photos of COCO change by 1.5 of 255 in the mean.
QUALITY = 95
SUFFIXES: dict[CacheFormat, str] = {"jpeg": "jpg", "raw": "rgb"}
# Longest side of a kept image in sides of the network's input: 448 pixels for an input of 320, about 60 kB a photo.
REACH = 1.4


class ImageCache:
    """Keeps reduced images in a folder, each in a file of its own.

    An entry belongs to the path, size and time of change of its image, so that images which change are read anew. Several processes may
    read and write at once: entries appear whole, and those that are damaged all the same are made anew. The folder may be deleted at any
    time.

    Args:
        folder: where to keep them.
        side: longest side of a kept image in pixels; smaller ones are read from their own files.
        kind: `jpeg`, or `raw` for bytes that need no decoding and about seven times the space.

    Raises:
        ValueError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, side: int, kind: CacheFormat = "jpeg") -> None:
        self.folder, self.side, self.kind, self.is_full = Path(folder), side, kind, False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(
                f"cache {folder} cannot be used ({error.strerror or error}); accepted: a folder that can be written"
            ) from error

    def read(self, path: str | Path, size: tuple[int, int], origin: str) -> tuple[RGBImage, tuple[int, int]]:
        """Reads an image as `tasks.images.read_annotated` does, but reduced.

        Returns:
            (H, W, 3) uint8 RGB, and the original's height and width.

        Raises:
            ValueError: the file cannot be read, or has another size than its annotations give.
        """
        place = None if size != (0, 0) and max(size) <= self.side else self.place(path)
        if place and (found := self._load(place)) and (0 in size or found[1] == size):
            return found
        image = read_annotated(path, size, origin)
        own = image.shape[0], image.shape[1]
        if place is None or max(own) <= self.side:
            return image, own
        content = self._encode(image)
        self._keep(place, HEADER.pack(MARK, *own, zlib.crc32(content)) + content)
        return self._decode(content, own), own  # what later epochs see too

    def place(self, path: str | Path) -> Path | None:
        """Where the entry of an image is; None where there is no such image."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        key = sha256(f"{os.path.abspath(path)}\0{found.st_size}\0{found.st_mtime_ns}\0{self.side}\0{QUALITY}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key[2:32]}.{SUFFIXES[self.kind]}"

    def _encode(self, image: RGBImage) -> bytearray:
        import cv2

        size = _reduced_size((image.shape[0], image.shape[1]), self.side)
        smaller = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        if self.kind == "raw":
            return bytearray(smaller.tobytes())
        encoded = cv2.imencode(".jpg", cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        return bytearray(encoded.tobytes())

    def _decode(self, content: bytearray | memoryview, size: tuple[int, int]) -> RGBImage:
        """The kept image of one of height and width `size`."""
        import cv2

        stored = np.frombuffer(content, dtype=np.uint8)
        if self.kind == "raw":
            return stored.reshape(*_reduced_size(size, self.side), 3)
        pixels: RGBImage = cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB)  # type: ignore[assignment]
        return pixels

    def _load(self, place: Path) -> tuple[RGBImage, tuple[int, int]] | None:
        """An entry; None where there is none, or a damaged one."""
        try:
            stored = bytearray(place.read_bytes())  # arrays of these can be written, as torch wants
            mark, height, width, checksum = HEADER.unpack_from(stored)
        except (OSError, struct.error):
            return None
        content = memoryview(stored)[HEADER.size :]
        if mark != MARK or checksum != zlib.crc32(content):
            return None
        try:
            return self._decode(content, (height, width)), (height, width)
        except ValueError:  # a damaged header tells another size
            return None

    def _keep(self, place: Path, content: bytes) -> None:
        """Writes beside the place and renames; what a lost power supply leaves half written, the checksum shows."""
        if self.is_full:
            return
        unfinished = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            place.parent.mkdir(exist_ok=True)
            unfinished.write_bytes(content)
            os.replace(unfinished, place)
        except OSError as error:
            self.is_full = True
            unfinished.unlink(missing_ok=True)
            log.warning("%s: cannot be written (%s); training goes on, but reads further images anew each time", place, error.strerror)


def _reduced_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of a kept image."""
    scale = side / max(size)
    return max(round(scale * size[0]), 1), max(round(scale * size[1]), 1)
