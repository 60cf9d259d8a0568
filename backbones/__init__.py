"""Backbones: networks that turn images into named feature maps."""

from backbones.base import Backbone, Offer, Preprocessing, Tap
from backbones.mobilenet_v2 import MobileNetV2

__all__ = ["Backbone", "MobileNetV2", "Offer", "Preprocessing", "Tap"]
