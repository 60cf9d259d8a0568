"""Which images of a data set are used: looked for before training, or decoded once and remembered."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tasks.readable
from tasks.classify.data import ImageFolder, Torchvision
from tasks.detect.data import Coco
from tasks.probe import probe
from tasks.segment.data import Folders
from tests.tasks import faulty

WHOLE = [0, 0, 30, 20]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mobiletap" / "checked"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nine images in each split, with a box each."""
    for split, first in (("train", 0), ("val", 100)):
        names = [f"{first + n}.jpg" for n in range(9)]
        for n, name in enumerate(names):
            faulty.picture(tmp_path / split / name, first + n)
        images = [faulty.image(n, name) for n, name in enumerate(names, start=1)]
        faulty.write_coco(tmp_path, split, images, [faulty.box(n, n, WHOLE) for n in range(1, 10)])
    return tmp_path


def coco(root: Path, **options: Any) -> Coco:
    files = {f"{s}_{what}": f"{root / s}{end}" for s in ("train", "val") for what, end in (("images", ""), ("annotations", ".json"))}
    data = Coco(**files, size=(32, 32), batch_size=2, num_workers=0, **options)
    data.setup("fit")
    return data


def names(dataset: Any) -> list[str]:
    return [Path(file).stem for file in dataset.annotations.files]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def test_missing_and_empty_files_are_named_before_training_with_their_count(root: Path) -> None:
    (root / "train" / "4.jpg").unlink()
    (root / "train" / "2.jpg").write_bytes(b"")
    (root / "train" / "8.jpg").unlink()
    said = r"2\.jpg: cannot be read as an image: the file is empty \(3 of the 9 files of the train split are missing or empty\)$"
    with pytest.raises(ValueError, match=said):
        coco(root)


def test_missing_mask_is_named_before_training(tmp_path: Path) -> None:
    data = folders(tmp_path)
    listed = data.annotations("train")
    (tmp_path / "train_masks" / "1.png").unlink()
    data.annotations = lambda split: listed  # type: ignore[method-assign]
    data.new_faults("train")
    with pytest.raises(ValueError, match=r"1\.png: cannot be read as a mask: no such file \(1 of the 6 files of the train split"):
        data.usable("train")


def folders(root: Path, **options: Any) -> Folders:
    for split in ("train", "val"):
        for n in range(3):
            faulty.picture(root / f"{split}_images" / f"{n}.jpg", n)
            (root / f"{split}_masks").mkdir(exist_ok=True)
            Image.fromarray(np.full(faulty.SIZE, n % 2, dtype=np.uint8)).save(root / f"{split}_masks" / f"{n}.png")
    named = {f"{s}_{what}": str(root / f"{s}_{what}") for s in ("train", "val") for what in ("images", "masks")}
    return Folders(["background", "cat"], **named, size=(32, 32), num_workers=0, **options)


def test_beginnings_of_a_sample_are_read(root: Path) -> None:
    (root / "val" / "108.jpg").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"108\.jpg: cannot be read as an image: it is text that begins with '<html>'$"):
        coco(root)


def test_broken_images_of_both_splits_are_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, number in (("train", 3), ("train", 7), ("val", 105)):
        truncate(root / split / f"{number}.jpg")
    with caplog.at_level(logging.WARNING, "lightning.pytorch"):
        data = coco(root, on_fault="skip")
        data.setup("validate")
    assert names(data.train_set) == ["0", "1", "2", "4", "5", "6", "8"]
    assert names(data.val_set) == ["100", "101", "102", "103", "104", "106", "107", "108"]
    assert [len(data.train_set), data.images_left_out] == [7, 1]
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "on_fault skip leaves out 1 of the 9 images of the val split",
        "on_fault skip leaves out 2 of the 9 images of the train split",
    ]
    assert all(data.train_set[n].position == n for n in range(7))
    assert [len(batch.indices) for batch in data.train_dataloader()] == [2, 2, 2]


def test_verdict_is_kept_until_a_file_changes(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(root / "train" / "3.jpg")
    first = coco(root, on_fault="skip")
    decoded: list[str] = []
    inspect_all = tasks.readable.inspect_all
    monkeypatch.setattr(tasks.readable, "inspect_all", lambda found, said: [decoded.append(said), *inspect_all(found, said)][1:])
    again = coco(root, on_fault="skip")
    assert decoded == []
    assert names(again.train_set) == names(first.train_set)
    assert again.faults["train"].to_json() == first.faults["train"].to_json()
    stamp = (root / "val" / "100.jpg").stat()
    os.utime(root / "val" / "100.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    coco(root, on_fault="skip")
    assert decoded == ["decoding all images of the val split"]
    for file in cache.glob("*.json"):
        file.write_bytes(b"[[3,")  # as no crash of ours leaves it
    assert names(coco(root, on_fault="skip").train_set) == names(first.train_set)
    assert len(decoded) == 3


def test_processes_of_a_run_decode_once_and_agree(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(root / "train" / "3.jpg")
    decoded: list[str] = []
    decode_all = tasks.readable._decode_all

    def slowly(found: Any, split: str) -> Any:
        decoded.append(split)
        time.sleep(0.2)
        return decode_all(found, split)

    monkeypatch.setattr(tasks.readable, "_decode_all", slowly)
    seen: list[list[str]] = []
    workers = [threading.Thread(target=lambda: seen.append(names(coco(root, on_fault="skip").train_set))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(decoded) == ["train", "val"]
    assert seen == [["0", "1", "2", "4", "5", "6", "7", "8"]] * 3


def test_a_cache_that_cannot_be_written_costs_time_only(root: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    truncate(root / "train" / "3.jpg")
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    with caplog.at_level(logging.WARNING, "lightning.pytorch"):
        assert len(coco(root, on_fault="skip").train_set) == 8
    assert "so the next run decodes all images again" in caplog.text


def test_image_that_breaks_later_is_named(root: Path) -> None:
    data = coco(root, on_fault="skip")
    truncate(root / "train" / "3.jpg")
    with pytest.raises(ValueError, match=r"3\.jpg: cannot be read as an image: image file is truncated"):
        data.train_set[3]


def test_nothing_left_is_an_error(root: Path) -> None:
    for file in (root / "train").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"train\.json: none of its images can be used$"):
        coco(root, on_fault="skip")


def test_masks_that_cannot_be_used_leave_their_images_out(tmp_path: Path) -> None:
    data = folders(tmp_path, on_fault="skip")
    truncate(tmp_path / "train_images" / "0.jpg")
    (tmp_path / "train_masks" / "1.png").write_bytes(b"")
    Image.fromarray(np.full(faulty.SIZE, 9, dtype=np.uint8)).save(tmp_path / "val_masks" / "1.png")
    (tmp_path / "val_masks" / "2.png").unlink()
    data.setup("fit")
    assert (names(data.train_set), names(data.val_set), data.images_left_out) == (["2"], ["0"], 2)
    assert data.val_set[0].mask.shape == faulty.SIZE


def test_broken_polygons_leave_their_images_out(tmp_path: Path) -> None:
    from tasks.segment.data import Coco as CocoMasks

    faulty.write_faulty_polygons(tmp_path)
    flags = dict(flag[7:].split("=") for flag in faulty.coco_flags(tmp_path) if "workers" not in flag)
    data = CocoMasks(**flags, voc_labels=False, min_pixels=0, on_fault="skip", num_workers=0)
    data.setup("fit")
    assert names(data.train_set) == ["1", "6"]
    assert np.unique(data.train_set.annotations.mask(1)).tolist() == [0, 2]


def test_classes_keep_their_labels(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            for n in range(3):
                faulty.picture(tmp_path / split / name / f"{n}.jpg", 10 * label + n)
    truncate(tmp_path / "train" / "cat" / "1.jpg")
    data = ImageFolder(str(tmp_path), size=(32, 32), num_workers=0, on_fault="skip")
    data.setup("fit")
    assert data.train_set.annotations.labels.tolist() == [0, 0, 1, 1, 1]
    assert names(data.train_set) == ["0", "2", "0", "1", "2"]


def test_images_of_torchvision_are_left_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [(Image.new("RGB", (8, 8)), n % 2) for n in range(5)] + [(None, 1)]
    data = Torchvision("CIFAR10", size=(8, 8), num_workers=0, names=["cat", "dog"], on_fault="skip")
    monkeypatch.setattr(data, "_build", lambda split: pictures)
    data.setup("fit")
    assert len(data.train_set) == 5
    assert [data.train_set[n].label for n in range(5)] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "ppm"])
def test_truncation_of_any_kind_is_noticed(tmp_path: Path, suffix: str) -> None:
    path = faulty.picture(tmp_path / f"a.{suffix}", 0)
    assert probe(str(path)).faults == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe(str(path)).worst is not None


def test_every_truncation_of_a_jpeg_is_judged_as_full_decoding_does(tmp_path: Path) -> None:
    from tasks.images import read_image

    whole = faulty.picture(tmp_path / "whole.jpg", 0).read_bytes()
    path = tmp_path / "cut.jpg"
    for length in range(0, len(whole) + 1, 41):
        path.write_bytes(whole[:length])
        try:
            read_image(path)
            is_whole = True
        except ValueError:
            is_whole = False
        assert (probe(str(path)).worst is None) == is_whole


def test_stat_of_many_files_is_quick(tmp_path: Path) -> None:
    paths = np.array([str(tmp_path / f"{n}.jpg") for n in range(1000)] + ["null\0byte", str(tmp_path)])
    (tmp_path / "7.jpg").write_bytes(b"1234")
    sizes = tasks.readable.stat_all(paths)[:, 0]
    assert sizes[7] == 4
    assert (np.delete(sizes, [7, 1001]) == -1).all()
