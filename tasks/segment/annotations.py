"""Masks of a data set: files of class indices, or COCO's polygons and run lengths, drawn when they are read."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads import IGNORE_INDEX
from tasks.coco import positions, read_coco
from tasks.images import SUFFIXES, RGBImage, opened, read_annotated
from tasks.labels import COCO_NAMES_OF_VOC, VOC_CLASSES, VOC_MASK_CLASSES
from tasks.segment.polygons import draw
from tasks.voc import read_split

log = logging.getLogger("lightning.pytorch")

Mask = NDArray[np.uint8]

# Masks looked at before training starts.
CHECKED_MASKS = 32


class MaskAnnotations(ABC):
    """Images with a mask each.

    Args:
        files: (I,) image paths.
        class_names: the K names, background first; mask value v stands for `class_names[v]`, 255 for void.
        source: the file or folder that the masks come from, for messages.

    Raises:
        ValueError: there are more classes than mask values.
    """

    def __init__(self, files: Sequence[str], class_names: Sequence[str], source: Path) -> None:
        if len(class_names) > IGNORE_INDEX:
            raise ValueError(f"{source}: has {len(class_names)} classes; accepted: up to {IGNORE_INDEX}, background included")
        self.files = np.array(files, dtype=np.str_)
        self.class_names, self.source = tuple(class_names), source

    def __len__(self) -> int:
        return len(self.files)

    @abstractmethod
    def mask(self, index: int) -> Mask:
        """Reads the mask of image `index`.

        Returns:
            (H, W) uint8 class indices, 255 for void.

        Raises:
            ValueError: it cannot be read, or has values that are no class; the message names the file.
        """

    @abstractmethod
    def origin(self, index: int) -> str:
        """Names the file that the mask of image `index` comes from."""

    def read(self, index: int) -> tuple[RGBImage, Mask]:
        """Reads image `index`, (H, W, 3), and its mask.

        Raises:
            ValueError: see `mask`; or the image cannot be read, or has another size.
        """
        mask = self.mask(index)
        return read_annotated(self.files[index], (mask.shape[0], mask.shape[1]), self.origin(index)), mask

    def check(self) -> None:
        """Reads some images and masks, evenly spread, so that a wrong convention shows before training.

        Raises:
            ValueError: see `read`; or no mask has any object but void.
        """
        values: set[int] = set()
        for index in np.unique(np.linspace(0, len(self) - 1, min(CHECKED_MASKS, len(self))).astype(int)).tolist():
            values |= set(np.unique(self.read(index)[1]).tolist())
        if IGNORE_INDEX in values and values <= {0, IGNORE_INDEX}:
            found = f"no values but {' and '.join(map(str, sorted(values)))}, and {IGNORE_INDEX} is void"
            raise ValueError(f"{self.source}: its masks have {found}; objects need the values 1 to {len(self.class_names) - 1}")


class MaskFiles(MaskAnnotations):
    """Masks in image files whose pixels are class indices: palette PNGs as VOC's, or grey ones.

    Args:
        files: (I,) image paths.
        masks: (I,) mask paths.
        class_names: the K names, background first.
        source: the file or folder that lists them.
    """

    def __init__(self, files: Sequence[str], masks: Sequence[str], class_names: Sequence[str], source: Path) -> None:
        super().__init__(files, class_names, source)
        self.masks = np.array(masks, dtype=np.str_)
        self._known = np.zeros(256, dtype=bool)
        self._known[[*range(len(class_names)), IGNORE_INDEX]] = True

    def origin(self, index: int) -> str:
        """The mask file."""
        return str(self.masks[index])

    def mask(self, index: int) -> Mask:
        """Reads a mask file, see `MaskAnnotations.mask`."""
        path = self.origin(index)
        mask = read_mask(path)
        if not self._known[mask].all():
            values, count = np.unique(mask).tolist(), len(self.class_names)
            accepted = f"0 to {count - 1}, one for each of the {count} classes, and {IGNORE_INDEX} for void"
            raise ValueError(f"{path}: has the values {_shorten(values)}; accepted: {accepted}")
        return mask


class CocoMasks(MaskAnnotations):
    """Masks drawn from the polygons and run lengths of an annotation file in COCO's format.

    Pixels where objects of different classes overlap are void, as are those of crowds.

    Args:
        files: (I,) image paths.
        sizes: (I, 2) heights and widths in pixels.
        class_names: the K names, background first.
        source: the annotation file.
        objects: for each image, its objects as JSON: [[label, is crowd, segmentation], ...].
    """

    def __init__(
        self, files: Sequence[str], sizes: NDArray[np.int64], class_names: Sequence[str], source: Path, objects: Sequence[bytes]
    ) -> None:
        super().__init__(files, class_names, source)
        self.sizes = sizes
        # One array instead of many objects, so that loader workers share it without copies.
        self._bytes = np.frombuffer(b"".join(objects), dtype=np.uint8)
        self._ends = np.cumsum([len(text) for text in objects])

    def origin(self, index: int) -> str:
        """The annotation file."""
        return str(self.source)

    def mask(self, index: int) -> Mask:
        """Draws a mask, see `MaskAnnotations.mask`."""
        size = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        start = self._ends[index - 1] if index else 0
        mask = np.zeros(size, dtype=np.uint8)
        crowds = np.zeros(size, dtype=bool)
        shapes: dict[tuple[int, bool], list[Any]] = {}
        for label, crowd, segmentation in json.loads(self._bytes[start : self._ends[index]].tobytes()):
            shapes.setdefault((label, bool(crowd)), []).append(segmentation)
        for (label, crowd), segmentations in shapes.items():
            drawn = draw(segmentations, size, f"{self.source}: an object of {self.files[index]}")
            if crowd:
                crowds |= drawn
            else:
                mask = np.where(drawn, np.where(mask == 0, label, IGNORE_INDEX), mask).astype(np.uint8)
        mask[crowds & (mask == 0)] = IGNORE_INDEX
        return mask


def read_mask(path: str | Path) -> Mask:
    """Reads a mask's class indices; of a palette image, the indices and not the colours.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: the file cannot be read, or holds colours.
    """
    try:
        with opened(path) as image:
            mode, pixels = image.mode, np.array(image)
    except Exception as error:  # Pillow's readers raise many kinds
        reason = "no such file" if isinstance(error, FileNotFoundError) else (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as a mask: {reason}") from error
    if pixels.ndim != 2:
        colours = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)[:4].tolist()
        raise ValueError(
            f"{path}: is a picture of colours ({mode}, such as {', '.join(map(str, colours))}); accepted: class indices, in a grey or "
            "palette image (converting a palette image to RGB loses them)"
        )
    with np.errstate(invalid="ignore"):  # NaN is no index either
        usable = pixels.dtype == np.uint8 or ((pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))).all()
    if not usable:
        raise ValueError(f"{path}: has values from {pixels.min()} to {pixels.max()}; accepted: whole numbers from 0 to 255")
    return pixels.astype(np.uint8)


def from_voc(root: str | Path, splits: Sequence[tuple[str, str]], class_names: Sequence[str]) -> MaskFiles:
    """Lists the segmentation images of a VOCdevkit.

    Args:
        root: the VOCdevkit folder.
        splits: (year, split) pairs, such as ("2012", "train_aug"), which are joined; those whose name ends in `_aug` take their masks from
            `SegmentationClassAug`, the others from `SegmentationClass`.
        class_names: the names of VOC's mask values.

    Raises:
        ValueError: a list or a folder is missing.
    """
    files: list[str] = []
    masks: list[str] = []
    for year, split in splits:
        folder, names = read_split(root, year, "Segmentation", split)
        mask_folder = folder / ("SegmentationClassAug" if split.endswith("_aug") else "SegmentationClass")
        if not mask_folder.is_dir():
            raise ValueError(f"{mask_folder}: no such folder, which holds the masks of {split}")
        files += [str(folder / "JPEGImages" / f"{name}.jpg") for name in names]
        masks += [str(mask_folder / f"{name}.png") for name in names]
    return MaskFiles(files, masks, class_names, Path(root))


def from_folders(images: str | Path, masks: str | Path, class_names: Sequence[str]) -> MaskFiles:
    """Pairs images and masks of the same name (without its ending).

    Raises:
        ValueError: a folder is missing or empty, an image has no mask, or two files of a folder have the same name.
    """
    pictures, drawn = _by_name(Path(images)), _by_name(Path(masks))
    alone = [str(path) for name, path in pictures.items() if name not in drawn]
    if alone:
        raise ValueError(f"{alone[0]}: has no mask of the same name in {masks} ({len(alone)} of {len(pictures)} images have none)")
    return MaskFiles([str(p) for p in pictures.values()], [str(drawn[name]) for name in pictures], class_names, Path(images))


def _by_name(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names without ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else []):
        if path.suffix.lower() in SUFFIXES and found.setdefault(path.stem, path) != path:
            raise ValueError(f"{path}: has the same name as {found[path.stem].name}; images and masks are paired by name")
    if not found:
        raise ValueError(f"{folder}: {'holds no images' if folder.is_dir() else 'no such folder'}")
    return found


def from_coco(path: str | Path, folder: str | Path, voc_labels: bool, min_pixels: int = 0) -> CocoMasks:
    """Reads the masks of an annotation file in COCO's format.

    Args:
        path: the JSON file.
        folder: where its images are.
        voc_labels: VOC's 21 classes, by COCO's names or VOC's own, and other objects as background; otherwise background and all
            categories of the file, by ascending id.
        min_pixels: images with less area of those classes are left out.

    Raises:
        ValueError: see `read_coco`; an annotation has no segmentation or names an unknown image or category; `folder` does not exist; or
            the file has none of COCO's or VOC's names.
    """
    path, folder = Path(path), Path(folder)
    data = read_coco(path)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such image folder (of {path})")
    categories = {c["id"]: str(c["name"]) for c in sorted(data["categories"], key=lambda category: category["id"])}
    if voc_labels:
        class_names: tuple[str, ...] = VOC_MASK_CLASSES
        places = {name: label for names in (VOC_CLASSES, COCO_NAMES_OF_VOC) for label, name in enumerate(names, start=1)}
        labels = {number: places[name] for number, name in categories.items() if name in places}
        if not labels:
            raise ValueError(f"{path}: has no category with a name of COCO's, such as person; set voc_labels to false to take its own")
        if len(labels) < len(categories):
            log.info("%s: voc_labels is true: background are %d of its %d categories", path, len(categories) - len(labels), len(categories))
    else:
        class_names = ("background", *categories.values())
        labels = {number: label for label, number in enumerate(categories, start=1)}
    images = data["images"]
    wrong = [image["file_name"] for image in images if not (image.get("height") and image.get("width"))]
    if wrong:
        raise ValueError(f"{path}: image {wrong[0]} has no height and width, in which its masks are drawn")
    known = np.array(list(categories), dtype=np.int64)
    positions(known, [a["category_id"] for a in data["annotations"]], f"{path}: an annotation has category_id")
    annotations = [a for a in data["annotations"] if a["category_id"] in labels]
    owners = positions(
        np.array([image["id"] for image in images], dtype=np.int64),
        [a["image_id"] for a in annotations],
        f"{path}: an annotation has image_id",
    )
    objects: list[list[Any]] = [[] for _ in images]
    areas = np.zeros(len(images))
    for owner, annotation in zip(owners.tolist(), annotations, strict=True):
        if not annotation.get("segmentation"):
            image = images[owner]["file_name"]
            raise ValueError(f"{path}: an object in image {image} has no segmentation; masks need polygons or run lengths")
        objects[owner].append([labels[annotation["category_id"]], annotation["iscrowd"], annotation["segmentation"]])
        areas[owner] += 0 if annotation["iscrowd"] else annotation["area"]
    kept = np.flatnonzero(areas >= min_pixels)
    return CocoMasks(
        files=[str(folder / images[i]["file_name"]) for i in kept],
        sizes=np.array([(images[i]["height"], images[i]["width"]) for i in kept], dtype=np.int64).reshape(-1, 2),
        class_names=class_names,
        source=path,
        objects=[json.dumps(objects[i]).encode() for i in kept],
    )


def _shorten(values: list[int], limit: int = 12) -> str:
    return ", ".join(map(str, values[:limit])) + (", ..." if len(values) > limit else "")
