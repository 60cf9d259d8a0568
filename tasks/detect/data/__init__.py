"""Detection data: COCO, VOC, one's own files in COCO's format, and the built-in shapes."""

from tasks.detect.data.base import Batch, BoxData, BoxDataset, Sample, collate
from tasks.detect.data.sets import Coco, Shapes, Voc

__all__ = [
    "Batch",
    "BoxData",
    "BoxDataset",
    "Coco",
    "Sample",
    "Shapes",
    "Voc",
    "collate",
]
