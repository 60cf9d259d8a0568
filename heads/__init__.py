"""Heads: networks that turn features into predictions, losses and results."""

from heads.anchors import AnchorRule
from heads.base import BoxPredictions, DetectionHead, Detections, Targets
from heads.multibox import FocalLoss, SigmoidLoss, SoftmaxLoss
from heads.nms import Suppression
from heads.ssd import SSD, SSDLite

__all__ = [
    "SSD",
    "AnchorRule",
    "BoxPredictions",
    "DetectionHead",
    "Detections",
    "FocalLoss",
    "SSDLite",
    "SigmoidLoss",
    "SoftmaxLoss",
    "Suppression",
    "Targets",
]
