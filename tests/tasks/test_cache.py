"""The cache of reduced images: equal data, changed files, damaged entries, several processes, full disks."""

import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tasks.cache
from tasks.cache import CacheFormat, ImageCache
from tasks.images import read_image

SIDE = 60


def photo(seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """Something smooth, as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def saved(path: Path, seed: int = 0, height: int = 90, width: int = 120) -> Path:
    Image.fromarray(photo(seed, height, width)).save(path)
    return path


def read(folder: Path, path: Path, kind: CacheFormat = "jpeg") -> tuple[NDArray[np.uint8], tuple[int, int]]:
    return ImageCache(folder, SIDE, kind).read(path, (0, 0), "its annotations")


def entries(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(("kind", "suffix", "apart"), [("jpeg", ".jpg", 2.0), ("raw", ".rgb", 0.0)])
def test_reduced_to_the_side_and_the_same_ever_after(kind: CacheFormat, suffix: str, apart: float, tmp_path: Path) -> None:
    path, folder = saved(tmp_path / "a.png"), tmp_path / "cache"
    first, second = read(folder, path, kind), read(folder, path, kind)
    assert (first[0].shape, first[1]) == ((45, 60, 3), (90, 120))
    assert np.array_equal(first[0], second[0])
    assert first[1] == second[1]
    reduced = cv2.resize(read_image(path), (60, 45), interpolation=cv2.INTER_AREA)
    assert np.abs(first[0].astype(int) - reduced).mean() <= apart
    assert [file.suffix for file in entries(folder)] == [suffix]


@pytest.mark.parametrize(("size", "kept"), [((0, 0), 0), ((45, 60), 0)])
def test_small_images_are_read_from_their_files(size: tuple[int, int], kept: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", height=45, width=60)
    image, found = ImageCache(tmp_path / "cache", SIDE).read(path, size, "its annotations")
    assert np.array_equal(image, read_image(path))
    assert found == (45, 60)
    assert len(entries(tmp_path / "cache")) == kept


def test_changed_images_are_read_anew(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", 0)
    before = read(tmp_path / "cache", path)[0]
    os.utime(saved(path, 1), ns=(1, 1))
    assert np.abs(read(tmp_path / "cache", path)[0].astype(int) - before).mean() > 5
    assert len(entries(tmp_path / "cache")) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "bit", "other"])
@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_damaged_entries_are_made_anew(kind: CacheFormat, damage: str, tmp_path: Path) -> None:
    path, folder = saved(tmp_path / "a.png"), tmp_path / "cache"
    whole, size = read(folder, path, kind)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    broken = {"empty": b"", "cut": content[: len(content) // 2], "header": content[:10], "bit": bytes(flipped), "other": b"x" * 100}
    entry.write_bytes(broken[damage])
    found = read(folder, path, kind)
    assert np.array_equal(found[0], whole)
    assert found[1] == size
    assert entry.read_bytes() == content


def test_missing_and_broken_images_are_refused_as_without_it(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    for name in ("missing.jpg", "broken.jpg"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as an image"):
            read(tmp_path / "cache", tmp_path / name)
    saved(tmp_path / "a.png")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a\.png: is 90 pixels high and 120 wide, but 70 and 80 in x\.json"):
            ImageCache(tmp_path / "cache", SIDE).read(tmp_path / "a.png", (70, 80), "x.json")
        read(tmp_path / "cache", tmp_path / "a.png")


def read_many(folder: str, paths: list[str], times: int) -> None:
    for _ in range(times):
        for path in paths:
            image, size = ImageCache(folder, SIDE).read(path, (0, 0), "")
            if image.shape != (45, 60, 3) or size != (90, 120):
                raise SystemExit(1)
        for entry in sorted(Path(folder).rglob("[!.]*.jpg"))[:2]:
            entry.write_bytes(entry.read_bytes()[:30])  # as a lost power supply does


def test_processes_share_a_folder(tmp_path: Path) -> None:
    paths = [str(saved(tmp_path / f"{number}.png", number)) for number in range(6)]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=read_many, args=(str(tmp_path / "cache"), paths, 15)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert all(np.abs(read(tmp_path / "cache", Path(path))[0].astype(int) - photo(n)[::2, ::2]).mean() < 9 for n, path in enumerate(paths))
    assert len(entries(tmp_path / "cache")) == 6  # no unfinished ones


def test_interrupted_writes_leave_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png")

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tasks.cache.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            read(tmp_path / "cache", path)
    assert [file.suffix for file in entries(tmp_path / "cache")] == [".part"]
    assert read(tmp_path / "cache", path)[1] == (90, 120)
    assert [file.suffix for file in entries(tmp_path / "cache")] == [".jpg"]


def test_full_disk_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tasks.cache.os, "replace", full)
    cache = ImageCache(tmp_path / "cache", SIDE)
    for number in range(3):
        assert cache.read(saved(tmp_path / f"{number}.png", number), (0, 0), "")[1] == (90, 120)
    (record,) = caplog.records
    assert "cannot be written (No space left on device); training goes on" in record.getMessage()
    assert entries(tmp_path / "cache") == []


def test_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"^cache .*file.* cannot be used \(.*\); accepted: a folder that can be written"):
            ImageCache(folder, SIDE)
