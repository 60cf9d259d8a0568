"""Images and masks of damaged bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.images import read_annotated, read_image
from tasks.segment.annotations import read_mask
from tests.fuzz.cases import damaged
from tests.fuzz.fuzzer import Fuzzer

# As written by Pillow: format, mode, and what else is said.
KINDS: list[tuple[str, str, dict[str, object]]] = [
    *(("JPEG", "RGB", {}), ("JPEG", "RGB", {"exif": b""}), ("JPEG", "CMYK", {}), ("JPEG", "L", {"progressive": True})),
    *(("PNG", "RGB", {}), ("PNG", "P", {"transparency": 3}), ("PNG", "I;16", {}), ("PNG", "LA", {}), ("PNG", "1", {})),
    *(("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "F", {}), ("TIFF", "L", {"compression": "tiff_adobe_deflate"})),
    *(
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("PPM", "RGB", {}),
    ),
]


def picture(kind: str, mode: str, options: dict[str, object]) -> bytes:
    """A small picture with EXIF data, where the format has any."""
    pixels = np.random.default_rng(0).integers(0, 255, size=(23, 31, 3), dtype=np.uint8)
    drawn = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    content = io.BytesIO()
    drawn.save(content, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}) | options)
    return content.getvalue()


@pytest.mark.parametrize(("kind", "mode", "options"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_images_and_masks(kind: str, mode: str, options: dict[str, object], fuzz: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        pixels = read_image(path)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.size

    def mask(content: bytes) -> None:
        path.write_bytes(content)
        values = read_mask(path)
        assert (values.dtype, values.ndim) == (np.uint8, 2)

    def annotated(content: bytes) -> None:
        path.write_bytes(content)
        read_annotated(path, (23, 31), "boxes.json")

    whole = picture(kind, mode, options)
    for act in (read, mask, annotated):
        fuzz(act, damaged(whole), [b"", whole, whole[: len(whole) // 2]], path.name, quick=8, slow=300)
