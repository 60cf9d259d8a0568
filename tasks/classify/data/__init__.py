"""Classification data: folders of classes, data sets of torchvision, and the built-in shapes."""

from tasks.classify.data.base import Batch, ImageData, ImageDataset, Sample, collate
from tasks.classify.data.sets import ImageFolder, Shapes, Torchvision

__all__ = [
    "Batch",
    "ImageData",
    "ImageDataset",
    "ImageFolder",
    "Sample",
    "Shapes",
    "Torchvision",
    "collate",
]
