"""COCO, VOC, one's own files in COCO's format, and the built-in shapes."""

from collections.abc import Sequence
from pathlib import Path

from tasks.cache import CacheFormat
from tasks.coco import coco_sources
from tasks.detect.annotations import BoxAnnotations, from_coco, from_voc
from tasks.detect.data.base import BoxData
from tasks.detect.transforms import Augmentation, LightAugmentation
from tasks.download import COCO_ARCHIVES, VOC_ARCHIVES, fetch
from tasks.faults import OnFault
from tasks.labels import VOC_CLASSES
from tasks.shapes import SHAPE_CLASSES, default_root, ensure_shapes
from tasks.voc import fetch_devkit, split_pairs


class Coco(BoxData):
    """COCO, or any data set in its format; class names are those of the annotation files.

    Args:
        root: folder with `train2017/`, `val2017/` and `annotations/`.
        train_images: folder of the training images, if not `root/train2017`.
        train_annotations: their annotation file, if not `root/annotations/instances_train2017.json`.
        val_images: folder of the validation images, if not `root/val2017`.
        val_annotations: their annotation file, if not `root/annotations/instances_val2017.json`.
        classes: names of the classes to train and evaluate on, in the order of their labels; by default all, by ascending category id.
            Objects of other classes are left out.
        download: fetch COCO 2017 (19 GB) into `root` where it is missing.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
        cache: folder that keeps training images reduced to 1.4 times the longer side of `size`, which makes later epochs and runs faster:
            about 60 kB an image for 320 pixels. Evaluation reads the originals.
        cache_format: `jpeg`, or `raw` for bytes that need no decoding: faster still where some 450 kB an image can be kept in memory.
    """

    def __init__(
        self,
        root: str = "data/coco",
        train_images: str | None = None,
        train_annotations: str | None = None,
        val_images: str | None = None,
        val_annotations: str | None = None,
        classes: Sequence[str] | None = None,
        download: bool = False,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
        cache: str | None = None,
        cache_format: CacheFormat = "jpeg",
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers, on_fault, cache, cache_format)
        self.root, self.download = Path(root), download
        self.sources = coco_sources(self.root, train_images, train_annotations, val_images, val_annotations)
        self.classes = classes
        self._read: dict[str, BoxAnnotations] = {}

    def prepare_data(self) -> None:
        """Downloads COCO where `download` says so."""
        if self.download:
            fetch(COCO_ARCHIVES, self.root)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in the validation annotations, by ascending category id, or the chosen ones."""
        self.prepare_data()
        return self.annotations("val").class_names

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val`, once."""
        if split not in self._read:
            folder, file = self.sources[split]
            self._read[split] = from_coco(file, folder, self.classes, self.new_faults(split))
        return self._read[split]


class Voc(BoxData):
    """PASCAL VOC's 20 classes of boxes.

    Args:
        root: the VOCdevkit folder, which holds `VOC2007/` and `VOC2012/`.
        train_splits: what to train on, as year/split; the usual 07+12 is 2007/trainval and 2012/trainval.
        val_splits: what to evaluate on, as year/split.
        download: fetch VOC 2007 and 2012 (3 GB) where they are missing; `root` must then end in VOCdevkit.
        train_difficult: train on objects marked difficult too; they never count in evaluation.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
        cache: folder that keeps training images reduced to 1.4 times the longer side of `size`, which makes later epochs and runs faster:
            about 60 kB an image for 320 pixels. Evaluation reads the originals.
        cache_format: `jpeg`, or `raw` for bytes that need no decoding: faster still where some 450 kB an image can be kept in memory.

    Raises:
        ValueError: a split is not written as year/split.
    """

    def __init__(
        self,
        root: str = "data/VOCdevkit",
        train_splits: Sequence[str] = ("2007/trainval", "2012/trainval"),
        val_splits: Sequence[str] = ("2007/test",),
        download: bool = False,
        train_difficult: bool = False,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
        cache: str | None = None,
        cache_format: CacheFormat = "jpeg",
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers, on_fault, cache, cache_format)
        self.root, self.download, self.train_difficult = Path(root), download, train_difficult
        self.splits = {"train": split_pairs(train_splits), "val": split_pairs(val_splits)}

    def prepare_data(self) -> None:
        """Downloads VOC where `download` says so."""
        if self.download:
            fetch_devkit(self.root, VOC_ARCHIVES)

    @property
    def class_names(self) -> tuple[str, ...]:
        """VOC's 20 classes."""
        return VOC_CLASSES

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the boxes of `train` or `val`."""
        read = from_voc(self.root, self.splits[split], self.new_faults(split))
        if split == "train" and self.train_difficult:
            read.ignored[:] = False
        return read


class Shapes(BoxData):
    """The built-in data set of drawn shapes (see `tasks.shapes`), for first runs and tests; drawn once and kept.

    Args:
        root: folder to keep the pictures in; by default the user's cache folder.
        train_images: number of training pictures.
        val_images: number of validation pictures.
        seed: another seed draws other pictures.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
        cache: folder that keeps training images reduced to 1.4 times the longer side of `size`, which makes later epochs and runs faster:
            about 60 kB an image for 320 pixels. Evaluation reads the originals.
        cache_format: `jpeg`, or `raw` for bytes that need no decoding: faster still where some 450 kB an image can be kept in memory.
    """

    def __init__(
        self,
        root: str | None = None,
        train_images: int = 2000,
        val_images: int = 200,
        seed: int = 0,
        size: tuple[int, int] = (192, 192),
        batch_size: int = 32,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
        cache: str | None = None,
        cache_format: CacheFormat = "jpeg",
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers, on_fault, cache, cache_format)
        self.root, self.counts, self.seed = root or default_root(), (train_images, val_images), seed

    def prepare_data(self) -> None:
        """Draws the pictures where they are missing."""
        ensure_shapes(self.root, *self.counts, self.seed)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the shapes."""
        return SHAPE_CLASSES

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val` with the COCO reader."""
        folder = ensure_shapes(self.root, *self.counts, self.seed)
        return from_coco(folder / "annotations" / f"instances_{split}.json", folder / split, faults=self.new_faults(split))
