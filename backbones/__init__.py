"""Backbones: networks that turn images into named feature maps."""

from backbones.base import Backbone, Offer, Preprocessing, Tap, select_taps
from backbones.mobilenet_v1 import MobileNetV1
from backbones.mobilenet_v2 import MobileNetV2
from backbones.module import ModuleBackbone
from backbones.nasnet import NASNetA
from backbones.shufflenet_v1 import ShuffleNetV1
from backbones.smp import SmpBackbone
from backbones.timm import TimmBackbone
from backbones.torchvision import TorchvisionBackbone

__all__ = [
    "Backbone",
    "MobileNetV1",
    "MobileNetV2",
    "ModuleBackbone",
    "NASNetA",
    "Offer",
    "Preprocessing",
    "ShuffleNetV1",
    "SmpBackbone",
    "Tap",
    "TimmBackbone",
    "TorchvisionBackbone",
    "select_taps",
]
