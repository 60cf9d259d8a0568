"""Finding and reading image files."""

import contextlib
import glob
import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.nn import functional as F

from tasks.jpeg import decode, read_plain_jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".mpo", ".ppm", ".pgm")

RGBImage = NDArray[np.uint8]

# Images that are read while the caller computes: the next one, and one in reserve where files take unequally long.
AHEAD = 2

# Half a gigabyte of RGB. From twice its MAX_IMAGE_PIXELS on Pillow itself refuses; below, it only warns.
MAX_PIXELS = 178_956_970


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Opens and loads an image of any common kind.

    Raises:
        DecompressionBombError: it has more pixels than `MAX_PIXELS`; they are not unpacked.
        Exception: whatever Pillow's readers raise on damaged files.
    """
    with _begun(path) as (image, _):
        image.load()
        yield image


@contextlib.contextmanager
def _begun(path: str | Path) -> Iterator[tuple[Image.Image, io.BufferedReader]]:
    """Opens an image and its file; the pixels are still to be loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of corrupt EXIF data and the like, beside which the picture is whole
        with _Bounded(io.FileIO(path)) as file, Image.open(file) as image:
            check_pixels(image)
            yield image, file


class _Bounded(io.BufferedReader):
    """Makes room for no more than a file has: a damaged PNG asks for gigabytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(os.fstat(self.fileno()).st_size - self.tell(), 0))
        return super().read(size)


def check_pixels(image: Image.Image) -> None:
    """Refuses an opened image of more pixels than `MAX_PIXELS`.

    Raises:
        DecompressionBombError: it has more.
    """
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"is {image.height} pixels high and {image.width} wide; accepted: up to {MAX_PIXELS} pixels")


def reason_of(error: Exception) -> str:
    """Returns why an image cannot be read, in one line."""
    return "no such file" if isinstance(error, FileNotFoundError) else (str(error) or type(error).__name__).splitlines()[0]


def read_image(path: str | Path, apply_exif: bool = True) -> RGBImage:
    """Reads an image of any common kind; of an animation, the first frame.

    Args:
        path: the file; grey of 10 to 16 bits is scaled to 8, and transparent pixels are put on white.
        apply_exif: turn the picture as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the file cannot be read as an image; the message names it.
    """
    try:
        if (pixels := read_plain_jpeg(path, MAX_PIXELS)) is not None:
            return pixels
        with _begun(path) as (image, file):
            turns = apply_exif and bool(image.getexif())
            if not turns and (image.format, image.mode) == ("JPEG", "RGB"):
                place = file.tell()
                file.seek(0)
                if (pixels := decode(bytearray(file.read()), image.size)) is not None:
                    return pixels
                file.seek(place)
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image) if turns else image))
    except Exception as error:  # Pillow's readers raise TypeError, SyntaxError and others on damaged files
        raise ValueError(f"{path}: cannot be read as an image: {reason_of(error)}") from error


def rgb_pixels(image: str | Path | RGBImage) -> RGBImage:
    """Reads a file, or takes pixels that are there.

    Raises:
        ValueError: the file cannot be read as an image, or the pixels are not (H, W, 3) uint8, or none.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    pixels: RGBImage = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"an image is {pixels.shape} of {pixels.dtype}; accepted: a file, or (H, W, 3) uint8 RGB pixels")
    fits = pixels.flags.c_contiguous and pixels.flags.writeable and min(pixels.strides) > 0
    return pixels if fits else np.array(pixels, order="C")  # as torch takes no others


def read_ahead(images: Iterable[str | Path | RGBImage]) -> Iterator[Callable[[], RGBImage]]:
    """Reads plain JPEGs on a thread of its own, `AHEAD` ahead of the caller; other files at their turn.

    Pillow, which reads the others, warns of what is no fault, and that cannot be silenced in a thread of its own.

    Args:
        images: what `rgb_pixels` takes; arrays may change once the next one is asked for.

    Yields:
        For each image, in order, a call that returns its pixels or raises what `rgb_pixels` raises.
    """
    waiting = deque[Callable[[], RGBImage]]()
    with ThreadPoolExecutor(1, "read_ahead") as reader:
        for image in images:
            if isinstance(image, (str, Path)):
                waiting.append(partial(_read_or_again, image, reader.submit(read_plain_jpeg, image, MAX_PIXELS)))
            else:
                waiting.append(partial(rgb_pixels, np.array(image)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting


def _read_or_again(path: str | Path, ahead: Future[RGBImage | None]) -> RGBImage:
    pixels = ahead.result()
    return read_image(path) if pixels is None else pixels


def read_annotated(path: str | Path, size: tuple[int, int], origin: str) -> RGBImage:
    """Reads an image in the pixels that its annotations are drawn on: as stored (COCO, VOC), or turned as its EXIF orientation says.

    Args:
        path: the file.
        size: height and width that its annotations give; 0 where they do not say.
        origin: the file that gives them, for the message.

    Raises:
        ValueError: the file cannot be read, or has another size.
    """
    image = read_image(path, apply_exif=False)
    if 0 not in size and image.shape[:2] != size:
        image = read_image(path)
        if image.shape[:2] != size:
            raise ValueError(other_size(path, (image.shape[0], image.shape[1]), size, origin))
    return image


def other_size(path: str | Path, found: tuple[int, int], size: tuple[int, int], origin: str) -> str:
    """Returns the sentence on an image of another height and width than `origin` says."""
    return f"{path}: is {found[0]} pixels high and {found[1]} wide, but {size[0]} and {size[1]} in {origin}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        transparent = values == image.info.get("transparency", np.nan)
        if image.mode == "F" and values.max() <= 1:
            values = values * 255
        # Cameras and scanners put 10, 12 or 14 bits into files of 16: the even number of bits that the largest value needs is the depth.
        depth = max(8, int(values.max()).bit_length())
        values = np.where(transparent, 255, values * 255 / (2 ** (depth + depth % 2) - 1))
        image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def resize_image(image: RGBImage, size: tuple[int, int]) -> RGBImage:
    """Resizes an (H, W, 3) image to (height, width) bilinearly, averaging where it gets smaller.

    It is Pillow's bilinear filter by torch, in less than half the time; values differ by one at most.
    Skipping pixels instead costs a detector a point of AP: Google's SSDLite has 35.5 on a part of COCO with it and 36.5 without.
    """
    pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)  # in this order: else the result is in another one, and takes longer
    resized: RGBImage = F.interpolate(pixels, (size[0], size[1]), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return resized


def find_images(sources: Sequence[str]) -> list[Path]:
    """Expands files, folders (searched through) and glob patterns to image paths, in order, each once.

    Raises:
        ValueError: a source matches nothing.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        else:
            matches = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())
        if not matches:
            raise ValueError(f"images {source!r} matches no image; accepted: files, folders and patterns such as 'photos/*.jpg'")
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values())
