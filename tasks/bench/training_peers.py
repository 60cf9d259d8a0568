"""Networks of the peers to train, and what builds ours of the same layers."""

from collections import OrderedDict
from functools import partial
from typing import Any

from torch import Tensor, nn

from backbones import MobileNetV2
from heads import DeepLabV3, SSDLite
from heads.multibox import SoftmaxLoss
from tasks.model import IMAGENET_MEAN, IMAGENET_STD

# Channels of the extra layers of torchvision's ssdlite320_mobilenet_v3_large, which are those of TensorFlow's ssdlite_mobilenet_v2_coco.
EXTRA_CHANNELS = (512, 256, 256, 128)
# Batch norms of torchvision's ssdlite320_mobilenet_v3_large.
NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)


class TorchvisionFeatures(nn.Module):
    """torchvision's MobileNetV2 with the extra layers of its SSDLite; taps as in the MobileNetV2 paper, section 6.2."""

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v2
        from torchvision.models.detection.ssdlite import _extra_block

        super().__init__()
        self.features = mobilenet_v2(weights=None).features
        widths = [1280, *EXTRA_CHANNELS]
        self.extra = nn.ModuleList(_extra_block(below, here, NORM) for below, here in zip(widths, EXTRA_CHANNELS, strict=False))

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The six maps of (B, 3, H, W) images."""
        found = self.features[:14](images)
        block = self.features[14].conv
        maps = [block[0](found)]
        maps.append(self.features[15:](block[1:](maps[0])))
        for extra in self.extra:
            maps.append(extra(maps[-1]))
        return OrderedDict((str(number), value) for number, value in enumerate(maps))


def torchvision_ssdlite(num_classes: int, size: tuple[int, int]) -> Any:
    """Torchvision's SSD with the head and anchors of its SSDLite320, on its own MobileNetV2.

    Args:
        num_classes: number of foreground classes.
        size: height and width of the input in pixels.
    """
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead

    anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    head = SSDLiteHead([576, 1280, *EXTRA_CHANNELS], anchors.num_anchors_per_location(), num_classes + 1, NORM)
    return SSD(TorchvisionFeatures(), anchors, size, num_classes + 1, list(IMAGENET_MEAN), list(IMAGENET_STD), head)


def ssdlite_parts() -> tuple[MobileNetV2, Any]:
    """Our backbone, and what builds our head, of the same network."""
    return MobileNetV2(), partial(SSDLite, anchors="torchvision", class_loss=SoftmaxLoss(min_negatives=0))


def transformers_deeplab(num_classes: int) -> Any:
    """Mobile DeepLabv3 of transformers with the settings of the published google/deeplabv3_mobilenet_v2_1.0_513."""
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    settings: dict[str, Any] = {
        "output_stride": 16,
        "num_labels": num_classes,
        "semantic_loss_ignore_index": 255,
        "classifier_dropout_prob": 0.0,
    }
    config: Any = MobileNetV2Config(**settings)
    return MobileNetV2ForSemanticSegmentation(config)


def deeplab_parts() -> tuple[MobileNetV2, Any]:
    """Our backbone, and what builds our head, of the same network."""
    backbone = MobileNetV2(["layer18"], output_stride=16, padding="same", bn_eps=1e-3, bn_momentum=0.003)
    return backbone, partial(DeepLabV3, padding="same", bn_eps=1e-5, dropout=0.0)


def copy_in_order(target: nn.Module, *sources: nn.Module) -> None:
    """Loads weights of networks whose layers stand in the same order under other names.

    Raises:
        ValueError: there is another number of tensors, or one of another shape.
    """
    values = [value for source in sources for value in source.state_dict().values()]
    own = target.state_dict()
    if [value.shape for value in values] != [value.shape for value in own.values()]:
        raise ValueError(f"the peer's network has other tensors than {type(target).__name__}; is another release of it installed?")
    target.load_state_dict(dict(zip(own, values, strict=True)))
