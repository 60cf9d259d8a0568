"""JPEG files without Pillow: its pixels, and nothing that only Pillow understands."""

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.images import read_image
from tasks.jpeg import HEADER, plain_size, read_plain_jpeg

WIDTH, HEIGHT = 37, 26
MANY = 10_000


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(values).resize((WIDTH, HEIGHT)).convert(mode).save(content, "JPEG", **options)
    return content.getvalue()


def as_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 95])
def test_pixels_are_pillows(tmp_path: Path, subsampling: str, progressive: bool, quality: int) -> None:
    content = jpeg(subsampling=subsampling, progressive=progressive, quality=quality, icc_profile=bytes(40_000), comment=b"\xff\xc0")
    (tmp_path / "a.jpg").write_bytes(content)
    pixels = read_plain_jpeg(tmp_path / "a.jpg", MANY)
    assert pixels is not None
    assert np.array_equal(pixels, as_pillow(content))


def test_colours_that_are_stored_as_they_are(tmp_path: Path) -> None:
    content = jpeg(keep_rgb=True)
    assert b"Adobe" in content
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_plain_jpeg(tmp_path / "a.jpg", MANY) is not None
    assert np.array_equal(read_image(tmp_path / "a.jpg"), as_pillow(content))


def test_real_photos(shared: Path) -> None:
    files = sorted((shared / "data" / "coco" / "val").glob("*.jpg"))[:60]
    plain = [read_plain_jpeg(file, 10**9) for file in files]
    assert sum(pixels is not None for pixels in plain) > len(files) * 0.9
    for file, pixels in zip(files, plain, strict=True):
        assert pixels is None or np.array_equal(pixels, as_pillow(file.read_bytes()))


EXIF = Image.Exif()
EXIF[0x0112] = 6
MULTIPLE = b"\xff\xe2\0\x10MPF\0" + bytes(10)


def exif_behind_the_frame() -> bytes:
    """EXIF may stand anywhere before the scan."""
    content = jpeg(exif=EXIF)
    begin = content.index(b"\xff\xe1")
    end = begin + 2 + int.from_bytes(content[begin + 2 : begin + 4], "big")
    scan = content.index(b"\xff\xda")
    return content[:begin] + content[end:scan] + content[begin:end] + content[scan:]


@pytest.mark.parametrize(
    "content",
    [
        jpeg("L"),
        jpeg("CMYK"),
        jpeg(exif=EXIF),
        jpeg()[:20],
        exif_behind_the_frame(),
        b"\xff\xd8" + MULTIPLE + jpeg()[2:],
        b"\xff\xd8\xff\xe0\0\x07JFIF\0" + jpeg()[20:],
        jpeg(icc_profile=bytes(200_000))[:HEADER],
        b"\xff\xd8",
        b"\x89PNG\r\n",
        b"",
    ],
    ids=["grey", "CMYK", "EXIF", "cut off", "EXIF behind", "several pictures", "short", "long header", "beginning", "PNG", "empty"],
)
def test_others_are_left_to_pillow(content: bytes) -> None:
    assert plain_size(content) is None


def test_exif_behind_the_frame_turns_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(exif_behind_the_frame())
    assert read_image(tmp_path / "a.jpg").shape == (WIDTH, HEIGHT, 3)


def test_what_is_no_file_is_left_to_pillow(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent.jpg"):
        assert read_plain_jpeg(path, MANY) is None


def test_only_the_header_is_read_of_others(tmp_path: Path) -> None:
    with (tmp_path / "turned.jpg").open("wb") as file:
        file.write(jpeg(exif=EXIF))
        file.truncate(1 << 40)  # takes no room on the disk
    assert read_plain_jpeg(tmp_path / "turned.jpg", MANY) is None


def test_size_is_width_and_height() -> None:
    assert plain_size(jpeg()) == (WIDTH, HEIGHT)


def test_too_large_and_damaged_ones_are_left_to_pillow(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "half.jpg").write_bytes(jpeg()[: jpeg().index(b"\xff\xda") + 30])
    assert plain_size((tmp_path / "half.jpg").read_bytes()) == (WIDTH, HEIGHT)
    assert read_plain_jpeg(tmp_path / "a.jpg", WIDTH * HEIGHT - 1) is None
    assert read_plain_jpeg(tmp_path / "half.jpg", MANY) is None


def test_torchvision_without_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg()
    (tmp_path / "a.jpg").write_bytes(content)
    monkeypatch.setattr(torch.ops, "image", SimpleNamespace())
    assert read_plain_jpeg(tmp_path / "a.jpg", MANY) is None
    monkeypatch.undo()
    assert read_plain_jpeg(tmp_path / "a.jpg", MANY) is not None
