"""MobileNetV2 keeps the contract of backbones."""

from typing import Any

from backbones import Backbone, MobileNetV2
from tests.backbones.contract import BackboneContract


class TestMobileNetV2(BackboneContract):
    def build(self, **arguments: Any) -> Backbone:
        return MobileNetV2(width_mult=0.35, **arguments)
