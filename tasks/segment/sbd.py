"""The masks of SBD (Hariharan et al. 2011) beside VOC 2012: the training set of 10,582 images that research/deeplab uses."""

import shutil
from pathlib import Path

import numpy as np

from heads import IGNORE_INDEX
from tasks.pictures import write_mask

# SBD's files have some kilobytes, but unpack to up to a thousand times their bytes.
MOST_BYTES = 1 << 20


def write_train_aug(voc: Path, sbd: Path) -> None:
    """Writes `SegmentationClassAug/` and `ImageSets/Segmentation/train_aug.txt` where they are missing.

    train_aug is VOC's train with all images of SBD that are not in VOC's val; VOC's own masks are taken where there are any.

    Args:
        voc: the folder VOCdevkit/VOC2012.
        sbd: SBD's folder benchmark_RELEASE/dataset.

    Raises:
        ValueError: one of the folders lacks a list or a mask.
    """
    from rich.progress import track

    lists, folder = voc / "ImageSets" / "Segmentation", voc / "SegmentationClassAug"
    if (lists / "train_aug.txt").is_file():  # written last
        return
    try:
        train, val = (set((lists / f"{split}.txt").read_text().split()) for split in ("train", "val"))
        annotated = {name for split in ("train", "val") for name in (sbd / f"{split}.txt").read_text().split()}
        names = sorted((annotated | train) - val)
        folder.mkdir(exist_ok=True)
        for name in track(names, description=f"writing {folder}"):
            if name in train:
                shutil.copyfile(voc / "SegmentationClass" / f"{name}.png", folder / f"{name}.png")
            else:
                _convert(sbd / "cls" / f"{name}.mat", folder / f"{name}.png")
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: no such file; {voc} must be VOC2012 and {sbd} the folder dataset of SBD") from error
    unfinished = lists / "train_aug.part"
    unfinished.write_text("\n".join(names) + "\n")
    unfinished.rename(lists / "train_aug.txt")


def _convert(source: Path, target: Path) -> None:
    from scipy.io import loadmat

    try:
        if source.stat().st_size > MOST_BYTES:
            raise ValueError(f"has {source.stat().st_size} bytes; accepted: up to {MOST_BYTES}")
        mask = np.asarray(loadmat(str(source))["GTcls"]["Segmentation"][0, 0])
        if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "ui":
            raise ValueError(f"is {mask.shape} of {mask.dtype}; accepted: a matrix of whole numbers")
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy's readers raise many kinds
        raise ValueError(f"{source}: cannot be read as a mask of SBD: {error}") from error
    if mask.max() > 20 and (mask[mask > 20] != IGNORE_INDEX).any():
        raise ValueError(f"{source}: has the value {mask.max()}; accepted: 0 to 20, and 255")
    write_mask(mask.astype(np.uint8), target)
