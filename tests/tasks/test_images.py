"""Reading images of every kind, and finding them."""

import csv
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.images import AHEAD, find_images, read_ahead, read_annotated, read_image, resize_image, rgb_pixels

MESSY = Path(__file__).resolve().parents[3] / "shared" / "data" / "messy"
Transpose = Image.Transpose
# What turns the upright picture into the stored one, by EXIF orientation.
STORED = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def messy_rows() -> list[dict[str, str]]:
    if not (MESSY / "index.csv").is_file():
        return []
    with (MESSY / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("row", messy_rows(), ids=lambda row: f"{row['category']}/{row['file']}")
def test_messy_file_is_read_or_refused_by_name(row: dict[str, str]) -> None:
    path = MESSY / row["category"] / row["file"]
    if row["open"] != "ok" or row["load"] != "ok":
        with pytest.raises(ValueError, match=row["file"]):
            read_image(path)
        return
    width, height = (int(side) for side in row["size"].split("x"))
    turned = row["exif_orientation"] in ("5", "6", "7", "8")
    image = read_image(path)
    assert image.shape == ((width, height, 3) if turned else (height, width, 3))
    assert image.dtype == np.uint8
    assert read_image(path, apply_exif=False).shape == (height, width, 3)


@pytest.mark.parametrize("name", ["Landscape_{}.jpg", "Portrait_{}.jpg"])
def test_all_orientations_show_the_same_picture(shared: Path, name: str) -> None:
    folder = shared / "data" / "messy" / "exif_orientation"
    upright = read_image(folder / name.format(1)).astype(float)
    for orientation in (0, 3, 4, 6, 7):
        turned = read_image(folder / name.format(orientation))
        assert turned.shape == upright.shape
        assert np.abs(turned - upright).mean() < 5


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = noise(6, 10)
    stored = Image.fromarray(upright).transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), upright)
    assert np.array_equal(read_image(tmp_path / "turned.png", apply_exif=False), np.asarray(stored))


def test_corrupt_exif_is_ignored_without_a_warning(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03"  # announces five entries and ends within the first
    Image.fromarray(noise(8, 8)).save(tmp_path / "exif.jpg", exif=exif)
    assert read_image(tmp_path / "exif.jpg").shape == (8, 8, 3)


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / f"red.{suffix}")
    assert np.abs(read_image(tmp_path / f"red.{suffix}").astype(int) - [255, 0, 0]).max() < 10


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / f"ramp.{suffix}")
    image = read_image(tmp_path / f"ramp.{suffix}")
    assert np.array_equal(image, np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))


def test_eight_bit_content_of_sixteen_bit_files_is_kept(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "dark.png")
    assert np.array_equal(read_image(tmp_path / "dark.png")[..., 0], values)


def test_shares_in_floating_point_are_not_black(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "float.tiff")
    assert np.array_equal(read_image(tmp_path / "float.tiff")[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    white = Image.new("RGB", (5, 7), "white").convert(mode)
    white.save(tmp_path / "white.png")
    image = read_image(tmp_path / "white.png")
    assert image.shape == (7, 5, 3)
    assert (image == 255).all()


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 128], [0, 0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png")[0, :, 0].tolist() == [255, 127, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_grey_is_put_on_white(tmp_path: Path, dtype: type) -> None:
    values = np.array([[0, 100, 200]], dtype=dtype) * np.array(257 if dtype is np.uint16 else 1, dtype=dtype)
    Image.fromarray(values).save(tmp_path / "grey.png", transparency=int(values[0, 1]))
    assert read_image(tmp_path / "grey.png")[0, :, 0].tolist() == [0, 255, 200]


def test_transparent_palette_is_put_on_white(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    palette.save(tmp_path / "palette.png", transparency=1)
    assert read_image(tmp_path / "palette.png")[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


@pytest.mark.parametrize("suffix", ["gif", "png", "tiff", "webp"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"film.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (read_image(tmp_path / f"film.{suffix}") == [255, 0, 0]).all()


def test_pixels_can_be_written_to(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    image[:] = 7
    assert image.flags.c_contiguous
    assert (image == 7).all()


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_broken_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.jpg: cannot be read as an image"):
        read_image(tmp_path / "broken.jpg")


def test_missing_file_and_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jpg: cannot be read as an image: no such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path)


def check_read_or_refused(path: Path) -> None:
    message = path.name
    try:
        channels = read_image(path).shape[2]
    except ValueError as error:
        channels, message = 3, str(error)
    assert channels == 3
    assert path.name in message


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "tiff", "webp", "bmp", "ppm"])
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    exif = {} if kind in ("gif", "bmp", "ppm") else {"exif": _exif(6)}
    Image.fromarray(noise(12, 16)).save(buffer, kind, **exif)
    whole = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    path = tmp_path / f"damaged.{kind}"
    for _ in range(150):
        damaged = whole[: rng.integers(8, len(whole) + 1)].copy()
        damaged[rng.integers(0, min(len(damaged), 400), size=rng.integers(0, 5))] = rng.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        check_read_or_refused(path)


@pytest.mark.parametrize("kind", [2, 11, 12])
def test_tiff_with_tags_of_a_wrong_type_is_read_or_refused(tmp_path: Path, kind: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(12, 16)).save(buffer, "tiff")
    whole = bytearray(buffer.getvalue())
    start = int.from_bytes(whole[4:8], "little") + 2
    for entry in range(start, start + 12 * int.from_bytes(whole[start - 2 : start], "little"), 12):
        damaged = whole.copy()
        damaged[entry + 2] = kind  # text, float, double
        (tmp_path / "odd.tiff").write_bytes(damaged)
        check_read_or_refused(tmp_path / "odd.tiff")


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """6 x 10 stored pixels that EXIF turns to 10 x 6."""
    Image.fromarray(noise(6, 10)).save(tmp_path / "turned.png", exif=_exif(6))
    return tmp_path / "turned.png"


@pytest.mark.parametrize("size", [(6, 10), (0, 0), (0, 10), (10, 0)])
def test_annotated_image_is_read_as_stored_where_that_fits_or_nothing_is_said(turned: Path, size: tuple[int, int]) -> None:
    assert np.array_equal(read_annotated(turned, size, "a.json"), noise(6, 10))


def test_annotated_image_is_turned_where_the_annotations_are(turned: Path) -> None:
    assert np.array_equal(read_annotated(str(turned), (10, 6), "a.json"), np.rot90(noise(6, 10), -1))


def test_annotated_image_of_its_size_is_not_turned_upside_down(tmp_path: Path) -> None:
    Image.fromarray(noise(6, 10)).save(tmp_path / "a.png", exif=_exif(3))
    assert np.array_equal(read_annotated(tmp_path / "a.png", (6, 10), "a.json"), noise(6, 10))


@pytest.mark.parametrize("size", [(6, 11), (5, 10), (12, 20)])
def test_annotated_image_of_another_size_is_refused(turned: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"turned\.png: is 10 pixels high and 6 wide, but {size[0]} and {size[1]} in a\.json$"):
        read_annotated(turned, size, "a.json")


def test_missing_annotated_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jpg: cannot be read as an image: no such file"):
        read_annotated(tmp_path / "absent.jpg", (6, 10), "a.json")


def test_pixels_that_are_there_are_copied_only_where_torch_needs_it() -> None:
    pixels, frozen = noise(6, 10), noise(6, 10)
    frozen.flags.writeable = False
    assert rgb_pixels(pixels) is pixels
    for other in (pixels[:, ::-1], pixels[:, 2:5], pixels[:, :1][:, ::-1], pixels[:1][::-1], frozen):
        taken = rgb_pixels(other)
        assert np.array_equal(taken, other)
        assert taken.flags.writeable
        assert torch.from_numpy(taken).is_contiguous()


def test_images_are_read_ahead_in_order(tmp_path: Path) -> None:
    asked: list[int] = []
    pictures = [noise(3 + number, 4) for number in range(6)]

    def sources() -> Iterator[Path | np.ndarray]:
        for number, picture in enumerate(pictures):
            asked.append(number)
            Image.fromarray(picture).save(tmp_path / f"{number}.png")
            yield tmp_path / f"{number}.png" if number % 2 else picture

    found = read_ahead(sources())
    assert np.array_equal(next(found)(), pictures[0])
    assert asked == list(range(1 + AHEAD))
    for read, picture in zip(found, pictures[1:], strict=True):
        assert np.array_equal(read(), picture)


def test_pixels_may_change_once_the_next_are_asked_for() -> None:
    def frames() -> Iterator[np.ndarray]:
        frame = noise(2, 2)
        for number in range(5):
            frame[:] = number
            yield frame

    assert [int(read()[0, 0, 0]) for read in read_ahead(frames())] == list(range(5))


def test_files_of_all_kinds_leave_warnings_as_they_were(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.{ending}" for number, ending in enumerate(["png", "jpg", "gif", "jpg", "bmp"])]
    for number, file in enumerate(files):
        Image.new("RGB", (4 + number, 4)).save(file)
    before = list(warnings.filters)
    for number, read in enumerate(read_ahead(files)):
        with warnings.catch_warnings():
            assert read().shape == (4, 4 + number, 3)
    assert warnings.filters == before


def test_an_image_that_cannot_be_read_is_named_at_its_turn(tmp_path: Path) -> None:
    reads = list(read_ahead([noise(2, 2), tmp_path / "absent.jpg", noise(3, 2)]))
    assert reads[0]().shape == (2, 2, 3)
    with pytest.raises(ValueError, match=r"absent\.jpg: cannot be read as an image: no such file$"):
        reads[1]()
    assert reads[2]().shape == (3, 2, 3)


def test_no_thread_is_left_where_the_caller_stops_before_the_end() -> None:
    def readers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]

    reads = read_ahead(["absent.jpg"] * 9)
    next(reads)
    assert readers()
    reads.close()  # type: ignore[attr-defined]
    assert not readers()


def test_resize_takes_height_then_width() -> None:
    image = np.zeros((10, 20, 3), dtype=np.uint8)
    image[:, 10:] = 200
    resized = resize_image(image, (5, 8))
    assert resized.shape == (5, 8, 3)
    assert (resized[:, :3] == 0).all()
    assert (resized[:, 5:] == 200).all()


@pytest.mark.parametrize("size", [(5, 8), (60, 31), (17, 90)])
def test_resizing_is_pillows_filter(size: tuple[int, int]) -> None:
    image = noise(40, 50)
    theirs = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    ours = resize_image(image, size)
    assert ours.shape == theirs.shape
    assert ours.flags.c_contiguous
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "deep/er/d.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_find_images_searches_folders(folder: Path) -> None:
    found = [path.relative_to(folder).as_posix() for path in find_images([str(folder)])]
    assert found == ["a.PNG", "b.jpg", "deep/c.webp", "deep/er/d.jpeg"]


def test_find_images_takes_files_of_any_name_and_patterns(folder: Path) -> None:
    assert find_images([str(folder / "notes.txt")]) == [folder / "notes.txt"]
    assert find_images([str(folder / "*.jpg")]) == [folder / "b.jpg"]
    assert find_images([str(folder / "**" / "*.jpeg")]) == [folder / "deep" / "er" / "d.jpeg"]


def test_find_images_names_each_once_in_the_order_given(folder: Path) -> None:
    found = find_images([str(folder / "deep"), str(folder), str(folder / "b.jpg"), f"{folder}/./b.jpg"])
    assert [path.name for path in found] == ["c.webp", "d.jpeg", "a.PNG", "b.jpg"]


def test_find_images_knows_one_file_by_two_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert len(find_images(["b.jpg", str(folder / "b.jpg"), "deep/../b.jpg"])) == 1


def test_find_images_takes_brackets_in_a_file_name_literally(tmp_path: Path) -> None:
    (tmp_path / "a[1].jpg").touch()
    assert find_images([str(tmp_path / "a[1].jpg")]) == [tmp_path / "a[1].jpg"]


def test_find_images_leaves_out_folders_named_like_images(tmp_path: Path) -> None:
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "album.jpg" / "a.jpg").touch()
    assert find_images([str(tmp_path)]) == [tmp_path / "album.jpg" / "a.jpg"]


@pytest.mark.parametrize("source", ["absent.jpg", "*.jpg", ""])
def test_find_images_refuses_what_matches_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match="matches no image"):
        find_images([str(tmp_path / source)])
