"""Masks of a data set: what they are, and where they are found."""

from tasks.segment.annotations.masks import CHECKED_MASKS, CocoMasks, Mask, MaskAnnotations, MaskFiles, read_mask
from tasks.segment.annotations.readers import from_coco, from_folders, from_voc

__all__ = [
    "CHECKED_MASKS",
    "CocoMasks",
    "Mask",
    "MaskAnnotations",
    "MaskFiles",
    "from_coco",
    "from_folders",
    "from_voc",
    "read_mask",
]
