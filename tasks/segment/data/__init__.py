"""Segmentation data: VOC, COCO, one's own folders of images and masks, and the built-in shapes."""

from tasks.segment.data.base import Batch, MaskData, MaskDataset, Sample, collate
from tasks.segment.data.sets import Coco, Folders, Shapes, Voc

__all__ = [
    "Batch",
    "Coco",
    "Folders",
    "MaskData",
    "MaskDataset",
    "Sample",
    "Shapes",
    "Voc",
    "collate",
]
