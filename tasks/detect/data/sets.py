"""COCO, VOC, one's own files in COCO's format, and the built-in shapes."""

from collections.abc import Sequence
from pathlib import Path

from tasks.detect.annotations import BoxAnnotations, from_coco, from_voc
from tasks.detect.data.base import BoxData
from tasks.detect.transforms import Augmentation, LightAugmentation
from tasks.download import Archive, fetch
from tasks.labels import VOC_CLASSES
from tasks.shapes import SHAPE_CLASSES, default_root, ensure_shapes

COCO_URL = "http://images.cocodataset.org"
COCO_ARCHIVES = (
    Archive(
        f"{COCO_URL}/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_val2017.json",
    ),
    Archive(f"{COCO_URL}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017"),
    Archive(f"{COCO_URL}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017"),
)
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC"
VOC_ARCHIVES = (
    Archive(
        f"{VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar",
        "c52e279531787c972589f7e41ab4ae64",
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
    ),
    Archive(
        f"{VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar",
        "b6e924de25625d8de591ea690078ad9f",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
    ),
    Archive(
        f"{VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
    ),
)


class Coco(BoxData):
    """COCO, or any data set in its format; class names are those of the annotation files.

    Args:
        root: folder with `train2017/`, `val2017/` and `annotations/`.
        train_images: folder of the training images, if not `root/train2017`.
        train_annotations: their annotation file, if not `root/annotations/instances_train2017.json`.
        val_images: folder of the validation images, if not `root/val2017`.
        val_annotations: their annotation file, if not `root/annotations/instances_val2017.json`.
        download: fetch COCO 2017 (19 GB) into `root` where it is missing.
        size: height and width of the network's input in pixels.
        batch_size: images a step and process.
        augmentation: recipe for training images.
        num_workers: loader processes; 0 loads in the training process.
    """

    def __init__(
        self,
        root: str = "data/coco",
        train_images: str | None = None,
        train_annotations: str | None = None,
        val_images: str | None = None,
        val_annotations: str | None = None,
        download: bool = False,
        size: tuple[int, int] = (320, 320),
        batch_size: int = 24,
        augmentation: Augmentation = LightAugmentation(),
        num_workers: int = 2,
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers)
        base = Path(root)
        self.root, self.download = base, download
        self.sources = {
            "train": (Path(train_images or base / "train2017"), Path(train_annotations or base / "annotations/instances_train2017.json")),
            "val": (Path(val_images or base / "val2017"), Path(val_annotations or base / "annotations/instances_val2017.json")),
        }
        self._read: dict[str, BoxAnnotations] = {}

    def prepare_data(self) -> None:
        """Downloads COCO where `download` says so."""
        if self.download:
            fetch(COCO_ARCHIVES, self.root)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in the validation annotations, by ascending category id."""
        self.prepare_data()
        return self.annotations("val").class_names

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the annotations of `train` or `val`, once."""
        if split not in self._read:
            folder, file = self.sources[split]
            self._read[split] = from_coco(file, folder)
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
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers)
        self.root, self.download, self.train_difficult = Path(root), download, train_difficult
        wrong = [split for split in [*train_splits, *val_splits] if split.count("/") != 1]
        if wrong:
            raise ValueError(f"split {wrong[0]!r} is not possible; accepted: year/split, such as 2012/trainval")
        self.splits = {"train": train_splits, "val": val_splits}

    def prepare_data(self) -> None:
        """Downloads VOC where `download` says so."""
        if self.download:
            if self.root.name != "VOCdevkit":
                raise ValueError(f"root {self.root} cannot be downloaded to; accepted: a folder named VOCdevkit, as in the archives")
            fetch(VOC_ARCHIVES, self.root.parent)

    @property
    def class_names(self) -> tuple[str, ...]:
        """VOC's 20 classes."""
        return VOC_CLASSES

    def annotations(self, split: str) -> BoxAnnotations:
        """Reads the boxes of `train` or `val`."""
        pairs = [(year, name) for year, _, name in (s.partition("/") for s in self.splits[split])]
        read = from_voc(self.root, pairs)
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
    ) -> None:
        super().__init__(size, batch_size, augmentation, num_workers)
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
        return from_coco(folder / "annotations" / f"instances_{split}.json", folder / split)
