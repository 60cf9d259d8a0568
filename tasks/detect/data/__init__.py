"""Detection data: COCO, VOC, one's own files in COCO's format, and the built-in shapes."""

from tasks.detect.data.base import Batch, BoxData, BoxDataset, Sample, check_same_classes, collate
from tasks.detect.data.sets import COCO_ARCHIVES, VOC_ARCHIVES, Coco, Shapes, Voc

__all__ = [
    "COCO_ARCHIVES",
    "VOC_ARCHIVES",
    "Batch",
    "BoxData",
    "BoxDataset",
    "Coco",
    "Sample",
    "Shapes",
    "Voc",
    "check_same_classes",
    "collate",
]
