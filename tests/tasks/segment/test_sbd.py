"""SBD's masks beside VOC 2012."""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tasks.download import SBD_ARCHIVE, fetch
from tasks.labels import VOC_MASK_CLASSES
from tasks.pictures import write_mask
from tasks.segment.annotations import from_voc, read_mask
from tasks.segment.sbd import write_train_aug


def write_mat(path: Path, mask: Any) -> None:
    """Writes a file of SBD: a struct GTcls with the fields Boundaries, Segmentation and CategoriesPresent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(
        path, {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": mask, "CategoriesPresent": np.array([[1]])}}, do_compression=True
    )


def filled(value: int) -> np.ndarray:
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[1:3, 2:5] = value
    return mask


def write_voc(folder: Path, train: Sequence[str], val: Sequence[str]) -> None:
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", train), ("val", val)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write_mask(filled(255), folder / "SegmentationClass" / f"{name}.png")


def write_sbd(folder: Path, train: Sequence[str], val: Sequence[str], value: int = 7) -> None:
    folder.mkdir(parents=True)
    for split, names in (("train", train), ("val", val)):
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write_mat(folder / "cls" / f"{name}.mat", filled(value))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC's train is `both` and `own`, its val `held` and `unseen`."""
    write_voc(tmp_path / "VOCdevkit" / "VOC2012", ["both", "own"], ["held", "unseen"])
    return tmp_path / "VOCdevkit" / "VOC2012"


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    """SBD's train is `new_b`, `both` and `held`, its val `new_a`."""
    write_sbd(tmp_path / "dataset", ["new_b", "both", "held"], ["new_a"])
    return tmp_path / "dataset"


def listed(voc: Path) -> list[str]:
    return (voc / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().splitlines()


def test_list_is_all_that_has_a_mask_without_vocs_val(voc: Path, sbd: Path) -> None:
    write_train_aug(voc, sbd)
    assert listed(voc) == ["both", "new_a", "new_b", "own"]
    assert sorted(path.stem for path in (voc / "SegmentationClassAug").iterdir()) == listed(voc)
    assert sorted(path.name for path in (voc / "ImageSets" / "Segmentation").iterdir()) == ["train.txt", "train_aug.txt", "val.txt"]


def test_vocs_own_masks_win_and_the_others_keep_their_values(voc: Path, sbd: Path) -> None:
    write_train_aug(voc, sbd)
    masks = {name: read_mask(voc / "SegmentationClassAug" / f"{name}.png") for name in listed(voc)}
    for name, value in {"both": 255, "own": 255, "new_a": 7, "new_b": 7}.items():
        assert np.array_equal(masks[name], filled(value))
    with Image.open(voc / "SegmentationClassAug" / "new_a.png") as picture:
        assert (picture.mode, picture.getpalette()[21:24]) == ("P", [128, 128, 128])


def test_written_split_is_read_by_from_voc(voc: Path, sbd: Path) -> None:
    write_train_aug(voc, sbd)
    found = from_voc(voc.parent, [("2012", "train_aug")], VOC_MASK_CLASSES)
    assert [np.unique(found.mask(index)).tolist() for index in range(4)] == [[0, 255], [0, 7], [0, 7], [0, 255]]


def test_second_call_writes_nothing(voc: Path, sbd: Path) -> None:
    write_train_aug(voc, sbd)
    (voc / "SegmentationClassAug" / "own.png").write_bytes(b"mine")
    for path in sbd.glob("*.txt"):
        path.unlink()
    write_train_aug(voc, sbd)
    assert (voc / "SegmentationClassAug" / "own.png").read_bytes() == b"mine"


def test_interrupted_writing_is_done_again(voc: Path, sbd: Path) -> None:
    whole = (sbd / "cls" / "new_b.mat").read_bytes()
    (sbd / "cls" / "new_b.mat").write_bytes(whole[:50])
    with pytest.raises(ValueError, match=r"new_b\.mat"):
        write_train_aug(voc, sbd)
    assert not (voc / "ImageSets" / "Segmentation" / "train_aug.txt").exists()
    (sbd / "cls" / "new_b.mat").write_bytes(whole)
    write_train_aug(voc, sbd)
    assert listed(voc) == ["both", "new_a", "new_b", "own"]


def damaged(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    noise = np.random.default_rng(0).bytes(300)
    return {
        "empty": b"",
        "text": b"no mat file",
        "cut": whole[: len(whole) // 2],
        "header alone": whole[:128],
        "noise": whole[:128] + noise,
    }


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "header alone", "noise"])
def test_damaged_mask_is_named(voc: Path, sbd: Path, kind: str) -> None:
    path = sbd / "cls" / "new_a.mat"
    path.write_bytes(damaged(path)[kind])
    with pytest.raises(ValueError, match=r"cls/new_a\.mat: cannot be read as a mask of SBD"):
        write_train_aug(voc, sbd)


@pytest.mark.parametrize("content", [{"GTinst": {"Segmentation": filled(1)}}, {"GTcls": {"Boundaries": 1}}, {"GTcls": filled(1)}], ids=str)
def test_mask_of_another_layout_is_named(voc: Path, sbd: Path, content: dict[str, Any]) -> None:
    savemat(sbd / "cls" / "new_a.mat", content)
    with pytest.raises(ValueError, match=r"cls/new_a\.mat: cannot be read as a mask of SBD"):
        write_train_aug(voc, sbd)


def test_missing_mask_is_named(voc: Path, sbd: Path) -> None:
    (sbd / "cls" / "new_a.mat").unlink()
    with pytest.raises(ValueError, match=r"cls/new_a\.mat: no such file"):
        write_train_aug(voc, sbd)


@pytest.mark.parametrize("value", [21, 254])
def test_mask_with_a_value_that_is_no_class_is_named(voc: Path, sbd: Path, value: int) -> None:
    write_mat(sbd / "cls" / "new_a.mat", filled(value))
    with pytest.raises(ValueError, match=rf"cls/new_a\.mat: has the value {value}; accepted: 0 to 20, and 255"):
        write_train_aug(voc, sbd)


def test_void_of_sbd_is_kept(voc: Path, sbd: Path) -> None:
    write_mat(sbd / "cls" / "new_a.mat", filled(255))
    write_train_aug(voc, sbd)
    assert np.array_equal(read_mask(voc / "SegmentationClassAug" / "new_a.png"), filled(255))


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_list_of_sbd_is_named(voc: Path, sbd: Path, split: str) -> None:
    (sbd / f"{split}.txt").unlink()
    with pytest.raises(
        ValueError, match=rf"dataset/{split}\.txt: no such file; .*VOC2012 must be VOC2012 and .* the folder dataset of SBD$"
    ):
        write_train_aug(voc, sbd)


@pytest.mark.parametrize("missing", ["ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "SegmentationClass/own.png"])
def test_missing_file_of_voc_is_named(voc: Path, sbd: Path, missing: str) -> None:
    (voc / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        write_train_aug(voc, sbd)


def test_archive_of_sbd_unpacks_to_what_is_read(voc: Path, sbd: Path, tmp_path: Path) -> None:
    assert SBD_ARCHIVE.url.endswith("/benchmark.tgz")
    with tarfile.open(tmp_path / "benchmark.tgz", "w:gz") as archive:
        archive.add(sbd, "benchmark_RELEASE/dataset")
        note = tarfile.TarInfo("benchmark_RELEASE/README")
        archive.addfile(note, io.BytesIO(b""))
    content = (tmp_path / "benchmark.tgz").read_bytes()
    local = SBD_ARCHIVE._replace(url=(tmp_path / "benchmark.tgz").as_uri(), md5=hashlib.md5(content).hexdigest())
    root = tmp_path / "data"
    fetch([local], root)
    assert (root / SBD_ARCHIVE.unpacks).is_file()
    assert not (root / "benchmark.tgz").exists()
    write_train_aug(voc, root / "benchmark_RELEASE" / "dataset")
    assert listed(voc) == ["both", "new_a", "new_b", "own"]


@pytest.mark.parametrize(
    "mask", [np.zeros((0, 0), dtype=np.uint8), np.array("text"), np.zeros((4, 6)), np.zeros((2, 2, 2), dtype=np.uint8)]
)
def test_mask_that_is_no_matrix_of_whole_numbers_is_named(voc: Path, sbd: Path, mask: Any) -> None:
    write_mat(sbd / "cls" / "new_a.mat", mask)
    with pytest.raises(ValueError, match=r"new_a\.mat: cannot be read as a mask of SBD: is .*; accepted: a matrix of whole numbers"):
        write_train_aug(voc, sbd)


def test_file_larger_than_any_of_sbd_is_not_unpacked(voc: Path, sbd: Path) -> None:
    write_mat(sbd / "cls" / "new_a.mat", np.random.default_rng(0).integers(0, 256, (1100, 1000), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"new_a\.mat: cannot be read as a mask of SBD: has \d+ bytes; accepted: up to 1048576"):
        write_train_aug(voc, sbd)


def test_objects_of_python_in_a_file_run_nothing(voc: Path, sbd: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (tmp_path / "exploded").touch, ()

    (sbd / "cls" / "new_a.mat").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"new_a\.mat: cannot be read as a mask of SBD"):
        write_train_aug(voc, sbd)
    assert not (tmp_path / "exploded").exists()
