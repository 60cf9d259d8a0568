"""Masks in files of class indices, or in COCO's polygons and run lengths, drawn when they are read."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from heads import IGNORE_INDEX
from tasks.faults import Fault, FaultError, shown
from tasks.images import RGBImage, opened, read_annotated, reason_of
from tasks.probe import Inspection, probe
from tasks.segment.polygons import draw

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

    # What it is called that an image has another size than its mask.
    size_kind: ClassVar[str]

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
    def select(self, kept: NDArray[np.int64]) -> Self:
        """Returns the annotations of some images, given by their ascending indices."""

    @abstractmethod
    def facts(self) -> bytes:
        """What decides, beside the files, whether images can be used."""

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

    def paths(self) -> dict[str, NDArray[np.str_]]:
        """The files that reading needs."""
        return {"image": self.files}

    def inspect(self, index: int, decode: bool = True) -> Inspection:
        """Finds what is wrong with image `index` and its mask, and counts the values; without `decode`, with the image's beginning."""
        file, size, faults = str(self.files[index]), (0, 0), []
        counts = None
        if decode:
            try:
                mask = self.mask(index)
                size, counts = (mask.shape[0], mask.shape[1]), np.bincount(mask.ravel(), minlength=256)
            except ValueError:
                faults = self.mask_faults(index)
        image = probe(file, decode, size, self.origin(index), self.size_kind)
        return Inspection(image.faults + faults, image.size, counts)

    @abstractmethod
    def mask_faults(self, index: int) -> list[Fault]:
        """Says why the mask of image `index` cannot be read."""

    def check(self) -> None:
        """Reads some images and masks, evenly spread, so that a wrong convention shows before training.

        Raises:
            ValueError: see `read`; or no mask has any object but void.
        """
        values: set[int] = set()
        for index in np.unique(np.linspace(0, len(self) - 1, min(CHECKED_MASKS, len(self))).astype(int)).tolist():
            values |= set(np.unique(self.read(index)[1]).tolist())
        self.check_convention(values)

    def check_convention(self, values: set[int]) -> None:
        """Refuses masks of nothing but background and void, where 255 was meant for objects.

        Args:
            values: all that the masks have.

        Raises:
            FaultError: no mask has any object but void.
        """
        if IGNORE_INDEX in values and values <= {0, IGNORE_INDEX}:
            found = f"no values but {' and '.join(map(str, sorted(values)))}, and {IGNORE_INDEX} is void"
            said = f"{self.source}: its masks have {found}; objects need the values 1 to {len(self.class_names) - 1}"
            raise FaultError(said, "mask_convention")


class MaskFiles(MaskAnnotations):
    """Masks in image files whose pixels are class indices: palette PNGs as VOC's, or grey ones.

    Args:
        files: (I,) image paths.
        masks: (I,) mask paths.
        class_names: the K names, background first.
        source: the file or folder that lists them.
    """

    size_kind = "mask_size"

    def __init__(self, files: Sequence[str], masks: Sequence[str], class_names: Sequence[str], source: Path) -> None:
        super().__init__(files, class_names, source)
        self.masks = np.array(masks, dtype=np.str_)
        self._known = np.zeros(256, dtype=bool)
        self._known[[*range(len(class_names)), IGNORE_INDEX]] = True

    def select(self, kept: NDArray[np.int64]) -> "MaskFiles":
        """Returns those of some images, see `MaskAnnotations.select`."""
        return MaskFiles(self.files[kept].tolist(), self.masks[kept].tolist(), self.class_names, self.source)

    def paths(self) -> dict[str, NDArray[np.str_]]:
        """Images and masks."""
        return {"image": self.files, "mask": self.masks}

    def facts(self) -> bytes:
        """The number of classes, which says what values are possible."""
        return str(len(self.class_names)).encode()

    def origin(self, index: int) -> str:
        """The mask file."""
        return str(self.masks[index])

    def mask_faults(self, index: int) -> list[Fault]:
        """The one reason, see `MaskAnnotations.mask_faults`."""
        try:
            self.mask(index)
        except FaultError as error:
            return [Fault(error.kind, str(error), str(self.files[index]), mask=self.origin(index))]
        return []

    def mask(self, index: int) -> Mask:
        """Reads a mask file, see `MaskAnnotations.mask`."""
        path = self.origin(index)
        mask = read_mask(path)
        if not self._known[mask].all():
            values, count = np.unique(mask).tolist(), len(self.class_names)
            accepted = f"0 to {count - 1}, one for each of the {count} classes, and {IGNORE_INDEX} for void"
            raise FaultError(f"{path}: has the values {_shorten(values)}; accepted: {accepted}", "mask_values")
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

    size_kind = "wrong_size"

    def __init__(
        self, files: Sequence[str], sizes: NDArray[np.int64], class_names: Sequence[str], source: Path, objects: Sequence[bytes]
    ) -> None:
        super().__init__(files, class_names, source)
        self.sizes = sizes
        # One array instead of many objects, so that loader workers share it without copies.
        self._bytes = np.frombuffer(b"".join(objects), dtype=np.uint8)
        self._ends = np.cumsum([len(text) for text in objects])

    def select(self, kept: NDArray[np.int64]) -> "CocoMasks":
        """Returns those of some images, see `MaskAnnotations.select`."""
        objects = [self._text(index) for index in kept.tolist()]
        return CocoMasks(self.files[kept].tolist(), self.sizes[kept], self.class_names, self.source, objects)

    def facts(self) -> bytes:
        """Sizes and objects."""
        return self.sizes.tobytes() + self._bytes.tobytes()

    def origin(self, index: int) -> str:
        """The annotation file."""
        return str(self.source)

    def mask_faults(self, index: int) -> list[Fault]:
        """Every object that cannot be drawn, see `MaskAnnotations.mask_faults`."""
        found = []
        for _, _, segmentation in json.loads(self._text(index)):
            try:
                draw([segmentation], self._size(index), self._whose(index))
            except FaultError as error:
                found.append(Fault(error.kind, str(error), str(self.files[index]), value=shown(segmentation)))
        return found

    def _text(self, index: int) -> bytes:
        return self._bytes[self._ends[index - 1] if index else 0 : self._ends[index]].tobytes()

    def _size(self, index: int) -> tuple[int, int]:
        return int(self.sizes[index, 0]), int(self.sizes[index, 1])

    def _whose(self, index: int) -> str:
        return f"{self.source}: an object of {self.files[index]}"

    def mask(self, index: int) -> Mask:
        """Draws a mask, see `MaskAnnotations.mask`."""
        size = self._size(index)
        mask = np.zeros(size, dtype=np.uint8)
        crowds = np.zeros(size, dtype=bool)
        shapes: dict[tuple[int, bool], list[Any]] = {}
        for label, crowd, segmentation in json.loads(self._text(index)):
            shapes.setdefault((label, bool(crowd)), []).append(segmentation)
        for (label, crowd), segmentations in shapes.items():
            drawn = draw(segmentations, size, self._whose(index))
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
        kind = "missing_mask" if isinstance(error, FileNotFoundError) else "broken_mask"
        raise FaultError(f"{path}: cannot be read as a mask: {reason_of(error)}", kind) from error
    if pixels.ndim != 2:
        colours = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)[:4].tolist()
        raise FaultError(
            f"{path}: is a picture of colours ({mode}, such as {', '.join(map(str, colours))}); accepted: class indices, in a grey or "
            "palette image (converting a palette image to RGB loses them)",
            "colour_mask",
        )
    with np.errstate(invalid="ignore"):  # NaN is no index either
        usable = pixels.dtype == np.uint8 or ((pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))).all()
    if not usable:
        found = f"{pixels.min()} to {pixels.max()}"
        raise FaultError(f"{path}: has values from {found}; accepted: whole numbers from 0 to 255", "mask_values")
    return pixels.astype(np.uint8)


def _shorten(values: list[int], limit: int = 12) -> str:
    return ", ".join(map(str, values[:limit])) + (", ..." if len(values) > limit else "")
