"""Networks of a few layers, exported in a second, with scores that differ as those of trained ones do."""

from functools import partial
from typing import TypeVar

import torch
from torch import nn

from backbones import ModuleBackbone
from heads import DeepLabV3, SSDLite
from tasks.detect.model import Detector
from tasks.segment.model import Segmenter
from tasks.shapes import SHAPE_CLASSES

SIZE = (64, 96)

Model = TypeVar("Model", bound=nn.Module)


class Tiny(nn.Sequential):
    """Layers 5 and 8 have strides 16 and 32."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for channels, wider, stride in ((3, 8, 4), (8, 16, 4), (16, 16, 2)):
            layers += [nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU6()]
        super().__init__(*layers)


def detector(names: tuple[str, ...] = SHAPE_CLASSES) -> Detector:
    torch.manual_seed(0)
    backbone = ModuleBackbone(f"{__name__}.Tiny", taps=["5", "8"])
    return settled(Detector(backbone, partial(SSDLite, extra_channels=(16,)), names, size=SIZE))


def segmenter() -> Segmenter:
    torch.manual_seed(0)
    backbone = ModuleBackbone(f"{__name__}.Tiny", taps=["5"])
    made = settled(Segmenter(backbone, partial(DeepLabV3, channels=16), ("background", "cat", "dog"), size=SIZE))
    with torch.no_grad():  # else one class wins everywhere
        made.head.logits.bias -= made(images_of(4)).mean((0, 2, 3))
    return made


def settled(model: Model) -> Model:
    """Gives batch norms statistics and scores a spread."""
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 4 and "class_layers" in name:
            value.mul_(20)
    return model.eval()


def images_of(count: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """(B, 3, H, W) coloured patches, channels last in memory."""
    patches = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8)
    return nn.functional.interpolate(patches, size, mode="nearest").contiguous(memory_format=torch.channels_last)
