"""Images of more pixels than the limit: nothing that reads images or masks unpacks them."""

import resource
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile

import tasks.images
from tasks.images import MAX_PIXELS, read_annotated, read_image, rgb_pixels
from tasks.segment.annotations import read_mask


def bombs(folder: Path) -> list[Path]:
    """Small files that say that they have more pixels than the limit."""
    gif = b"GIF89a" + (60_000).to_bytes(2, "little") * 2 + b"\x00\x00\x00"
    gif += b"," + bytes(4) + (60_000).to_bytes(2, "little") * 2 + b"\x00\x08\x00;"
    header = (20_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(20_001 * 2000))), (b"IEND", b""))
    )
    for name, content in (("bomb.gif", gif), ("bomb.png", png)):
        (folder / name).write_bytes(content)
    return [folder / "bomb.gif", folder / "bomb.png"]


@pytest.mark.parametrize("limit_of_pillow", [None, 89_478_485])
def test_more_pixels_than_the_limit_are_refused_by_all_that_read(
    limit_of_pillow: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit_of_pillow)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *args: pytest.fail("pixels were unpacked"))
    for path in bombs(tmp_path):
        for read in (read_image, read_mask, rgb_pixels, lambda path: read_annotated(path, (0, 0), "x")):
            with pytest.raises(
                ValueError, match=rf"{path.name}: cannot be read as an? (image|mask): .*(178956970|accepted: up to 178956970)"
            ):
                read(path)


def test_limit_is_where_pillow_refuses_and_below_it_nothing_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    Image.new("L", (40, 30), 3).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 - 1)  # Pillow warns
    assert read_image(tmp_path / "a.png").shape == (30, 40, 3)
    assert read_mask(tmp_path / "a.png").shape == (30, 40)
    monkeypatch.setattr(tasks.images, "MAX_PIXELS", 40 * 30 - 1)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image: is 30 pixels high and 40 wide; accepted: up to 1199 pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's account of memory")
def test_damaged_length_makes_no_room(tmp_path: Path) -> None:
    """The last chunk of this PNG says that it has two gigabytes; plain reading would make room for them."""
    whole = tmp_path / "whole.png"
    Image.new("RGB", (64, 64)).save(whole)
    content = whole.read_bytes()
    place = content.index(b"IDAT") - 4
    (tmp_path / "odd.png").write_bytes(content[:place] + (2**31 - 1).to_bytes(4, "big") + content[place + 4 :])
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, before[1]))
    try:
        assert read_image(tmp_path / "odd.png").shape == (64, 64, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
