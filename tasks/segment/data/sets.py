"""VOC, COCO, one's own folders of images and masks, and the built-in shapes."""

from collections.abc import Sequence
from pathlib import Path

from tasks.coco import coco_sources
from tasks.download import COCO_ARCHIVES, SBD_ARCHIVE, VOC_ARCHIVES, fetch
from tasks.faults import OnFault
from tasks.labels import VOC_MASK_CLASSES
from tasks.segment.annotations import MaskAnnotations, from_coco, from_folders, from_voc
from tasks.segment.data.base import MaskData
from tasks.segment.sbd import write_train_aug
from tasks.segment.transforms import Augmentation, DeepLabAugmentation
from tasks.shapes import SHAPE_CLASSES, default_root, ensure_shapes
from tasks.voc import fetch_devkit, split_pairs


class Voc(MaskData):
    """PASCAL VOC's 21 classes of pixels.

    Args:
        root: the VOCdevkit folder, which holds `VOC2012/`.
        train_splits: what to train on, as year/split: 2012/train, 2012/trainval, or 2012/train_aug with the masks of SBD (Hariharan et
            al. 2011), which research/deeplab trains on.
        val_splits: what to evaluate on, as year/split.
        download: fetch VOC 2012 (2 GB) and SBD (1.4 GB) where they are missing; `root` must then end in VOCdevkit.
        size: height and width of the network's input in evaluation; larger images are reduced to it, smaller ones padded.
        crop_size: height and width of training crops; by default `size`.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.

    Raises:
        ValueError: a split is not written as year/split.
    """

    def __init__(
        self,
        root: str = "data/VOCdevkit",
        train_splits: Sequence[str] = ("2012/train_aug",),
        val_splits: Sequence[str] = ("2012/val",),
        download: bool = False,
        size: tuple[int, int] = (513, 513),
        crop_size: tuple[int, int] | None = None,
        batch_size: int = 16,
        augmentation: Augmentation = DeepLabAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop_size, batch_size, augmentation, num_workers, on_fault)
        self.root, self.download = Path(root), download
        self.splits = {"train": split_pairs(train_splits), "val": split_pairs(val_splits)}

    def prepare_data(self) -> None:
        """Downloads VOC 2012 and SBD where `download` says so."""
        if self.download:
            fetch_devkit(self.root, VOC_ARCHIVES[2:])
            lists = self.root / "VOC2012" / "ImageSets" / "Segmentation"
            if ("2012", "train_aug") in self.splits["train"] and not (lists / "train_aug.txt").is_file():
                fetch([SBD_ARCHIVE], self.root.parent)
                write_train_aug(self.root / "VOC2012", self.root.parent / "benchmark_RELEASE" / "dataset")

    @property
    def class_names(self) -> tuple[str, ...]:
        """VOC's 21 classes."""
        return VOC_MASK_CLASSES

    def annotations(self, split: str) -> MaskAnnotations:
        """Lists the images and masks of `train` or `val`."""
        self.new_faults(split)
        return from_voc(self.root, self.splits[split], VOC_MASK_CLASSES)


class Coco(MaskData):
    """COCO's masks, with VOC's 21 labels for pretraining, or with all the categories of an annotation file.

    Args:
        root: folder with `train2017/`, `val2017/` and `annotations/`.
        train_images: folder of the training images, if not `root/train2017`.
        train_annotations: their annotation file, if not `root/annotations/instances_train2017.json`.
        val_images: folder of the validation images, if not `root/val2017`.
        val_annotations: their annotation file, if not `root/annotations/instances_val2017.json`.
        download: fetch COCO 2017 (19 GB) into `root` where it is missing.
        voc_labels: VOC's 20 classes and background, by COCO's names, other objects being background; otherwise all the file's categories.
        min_pixels: training images with less area of the classes are left out; 1000 in the usual COCO pretraining (torchvision's).
        size: height and width of the network's input in evaluation; larger images are reduced to it, smaller ones padded.
        crop_size: height and width of training crops; by default `size`.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
    """

    def __init__(
        self,
        root: str = "data/coco",
        train_images: str | None = None,
        train_annotations: str | None = None,
        val_images: str | None = None,
        val_annotations: str | None = None,
        download: bool = False,
        voc_labels: bool = True,
        min_pixels: int = 1000,
        size: tuple[int, int] = (513, 513),
        crop_size: tuple[int, int] | None = None,
        batch_size: int = 16,
        augmentation: Augmentation = DeepLabAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop_size, batch_size, augmentation, num_workers, on_fault)
        self.root, self.download = Path(root), download
        self.voc_labels, self.min_pixels = voc_labels, min_pixels
        self._read: dict[str, MaskAnnotations] = {}
        self.sources = coco_sources(self.root, train_images, train_annotations, val_images, val_annotations)

    def prepare_data(self) -> None:
        """Downloads COCO where `download` says so."""
        if self.download:
            fetch(COCO_ARCHIVES, self.root)

    @property
    def class_names(self) -> tuple[str, ...]:
        """VOC's 21 classes, or background and the names in the validation annotations by ascending category id."""
        if self.voc_labels:
            return VOC_MASK_CLASSES
        self.prepare_data()
        return self.annotations("val").class_names

    def annotations(self, split: str) -> MaskAnnotations:
        """Reads the annotations of `train` or `val`, once."""
        if split not in self._read:
            folder, file = self.sources[split]
            min_pixels = self.min_pixels if split == "train" else 0
            self._read[split] = from_coco(file, folder, self.voc_labels, min_pixels, self.new_faults(split))
        return self._read[split]


class Folders(MaskData):
    """One's own images and masks: two folders a split, in which an image and its mask have the same name.

    Masks are grey or palette images of class indices, 255 for void.

    Args:
        class_names: names of the mask values 0, 1, ...; background is the first.
        train_images: folder of the training images.
        train_masks: folder of their masks.
        val_images: folder of the validation images.
        val_masks: folder of their masks.
        size: height and width of the network's input in evaluation; larger images are reduced to it, smaller ones padded.
        crop_size: height and width of training crops; by default `size`.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        train_images: str = "data/train/images",
        train_masks: str = "data/train/masks",
        val_images: str = "data/val/images",
        val_masks: str = "data/val/masks",
        size: tuple[int, int] = (513, 513),
        crop_size: tuple[int, int] | None = None,
        batch_size: int = 16,
        augmentation: Augmentation = DeepLabAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop_size, batch_size, augmentation, num_workers, on_fault)
        self._names = tuple(class_names)
        self.folders = {"train": (train_images, train_masks), "val": (val_images, val_masks)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names that were given."""
        return self._names

    def annotations(self, split: str) -> MaskAnnotations:
        """Pairs the images and masks of `train` or `val`."""
        return from_folders(*self.folders[split], self._names, self.new_faults(split))


class Shapes(MaskData):
    """The built-in data set of drawn shapes (see `tasks.shapes`), for first runs and tests; drawn once and kept.

    Args:
        root: folder to keep the pictures in; by default the user's cache folder.
        train_images: number of training pictures.
        val_images: number of validation pictures.
        seed: another seed draws other pictures.
        size: height and width of the network's input in evaluation; larger images are reduced to it, smaller ones padded.
        crop_size: height and width of training crops; by default `size`.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
        on_fault: what to do with images and annotations that cannot be used: `error` names the first, `skip` leaves them out of both
            splits and lists them once.
    """

    def __init__(
        self,
        root: str | None = None,
        train_images: int = 2000,
        val_images: int = 200,
        seed: int = 0,
        size: tuple[int, int] = (256, 256),
        crop_size: tuple[int, int] | None = None,
        batch_size: int = 16,
        augmentation: Augmentation = DeepLabAugmentation(),
        num_workers: int = 2,
        on_fault: OnFault = "error",
    ) -> None:
        super().__init__(size, crop_size, batch_size, augmentation, num_workers, on_fault)
        self.root, self.counts, self.seed = root or default_root(), (train_images, val_images), seed

    def prepare_data(self) -> None:
        """Draws the pictures where they are missing."""
        ensure_shapes(self.root, *self.counts, self.seed)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Background and the names of the shapes."""
        return ("background", *SHAPE_CLASSES)

    def annotations(self, split: str) -> MaskAnnotations:
        """Reads the masks of `train` or `val` with the COCO reader."""
        folder = ensure_shapes(self.root, *self.counts, self.seed)
        file = folder / "annotations" / f"instances_{split}.json"
        return from_coco(file, folder / split, voc_labels=False, faults=self.new_faults(split))
