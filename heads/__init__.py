"""Heads: networks that turn features into predictions, losses and results."""

from heads.anchors import AnchorRule
from heads.base import IGNORE_INDEX, BoxPredictions, DetectionHead, Detections, SegmentationHead, Targets
from heads.classifier import ClassifierHead
from heads.cross_entropy import CrossEntropyLoss, OHEMLoss
from heads.deeplabv3 import LRASPP, DeepLabV3
from heads.multibox import FocalLoss, SigmoidLoss, SoftmaxLoss
from heads.nms import Suppression
from heads.smp import SmpDecoder
from heads.ssd import SSD, SSDLite

__all__ = [
    "IGNORE_INDEX",
    "LRASPP",
    "SSD",
    "AnchorRule",
    "BoxPredictions",
    "ClassifierHead",
    "CrossEntropyLoss",
    "DeepLabV3",
    "DetectionHead",
    "Detections",
    "FocalLoss",
    "OHEMLoss",
    "SSDLite",
    "SegmentationHead",
    "SigmoidLoss",
    "SmpDecoder",
    "SoftmaxLoss",
    "Suppression",
    "Targets",
]
