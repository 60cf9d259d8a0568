"""Looking at one image: whether it can be read, and what is odd about it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.faults import UNUSABLE, Fault
from tasks.images import check_pixels, other_size, read_image, reason_of

# EXIF's number of the orientation, and its values that swap height and width.
ORIENTATION, SWAPPING = 0x0112, (5, 6, 7, 8)
# JPEGs are decoded at this share of their size, which reads all their data in half the time.
DRAFT = 8

Size = tuple[int, int]


class Inspection(NamedTuple):
    """What is found in one image and its ground truth.

    Attributes:
        faults: all of them.
        size: height and width in pixels, 0 where it cannot be read.
        counts: pixels (or images) of each class, where they show only on reading.
    """

    faults: list[Fault]
    size: Size = (0, 0)
    counts: NDArray[np.int64] | None = None

    @property
    def worst(self) -> Fault | None:
        """The first fault that keeps the image from being used."""
        return next((fault for fault in self.faults if fault.kind in UNUSABLE), None)


@contextmanager
def silenced() -> Iterator[None]:
    """Ignores warnings of corrupt EXIF data and the like, beside which a picture is whole; around threads, which share such filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def probe(path: str, decode: bool = True, size: Size = (0, 0), origin: str = "", size_kind: str = "wrong_size") -> Inspection:
    """Finds what is wrong with an image file, as `read_image` and `read_annotated` would; use it in `silenced`, also from threads.

    Args:
        path: the file.
        decode: look at all of it instead of at its beginning.
        size: height and width that its annotations give; 0 where they do not say.
        origin: the file that gives them, for the message.
        size_kind: what another size is called.
    """
    try:
        with Image.open(path) as image:
            check_pixels(image)
            stored, ending = (image.height, image.width), _wrong_ending(path, image.format or "")
            turned = stored[::-1] if image.getexif().get(ORIENTATION) in SWAPPING else stored
            is_jpeg = image.format == "JPEG"
            if decode and is_jpeg:
                image.draft(None, (max(image.width // DRAFT, 1), max(image.height // DRAFT, 1)))  # type: ignore[arg-type]
                ImageOps.exif_transpose(image)
        if decode and not is_jpeg:
            read_image(path)
    except Exception as error:  # Pillow's readers raise TypeError, SyntaxError and others on damaged files
        return Inspection([_unreadable(path, error)])
    faults = [Fault("wrong_ending", ending, path)] if ending else []
    if 0 not in size and size not in (stored, turned):
        faults.append(Fault(size_kind, other_size(path, turned, size, origin), path))
    return Inspection(faults, size if size == stored else turned)


def _wrong_ending(path: str, found: str) -> str:
    said = Image.registered_extensions().get(Path(path).suffix.lower(), found)  # MPO is JPEG, with further pictures behind the first
    return f"{path}: is a {found} image" if len({said, found} - {"MPO"}) > 1 else ""


def _unreadable(path: str, error: Exception) -> Fault:
    cause = error.__cause__ if isinstance(error, ValueError) and isinstance(error.__cause__, Exception) else error
    kind, reason = _kind(path, cause), reason_of(cause)
    if kind == "empty_image":
        reason = "the file is empty"
    elif kind == "not_an_image":
        reason = _beginning(path)
    return Fault(kind, f"{path}: cannot be read as an image: {reason}", path)


def _kind(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or not os.path.exists(path):
        return "missing_image"
    if os.path.isfile(path) and not os.path.getsize(path):
        return "empty_image"
    if isinstance(error, UnidentifiedImageError):
        return "not_an_image"
    if isinstance(error, Image.DecompressionBombError):
        return "huge_image"
    return "truncated_image" if "truncated" in str(error).lower() else "broken_image"


def _beginning(path: str) -> str:
    """What a file is that no reader knows."""
    with open(path, "rb") as file:
        start = file.read(40)
    text = start.decode("utf-8", errors="ignore").strip()
    is_text = text.isprintable() and len(text) > 0.9 * len(start.strip())
    return f"it is text that begins with {text!r}" if is_text else "no known kind of image"
