"""Networks of other libraries with random weights and statistics, and files of them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.weights import SCHEMES, Scheme
from tasks.convert import HEAD_KEYS, convert
from tasks.model import TaskModel

Arrays = dict[str, np.ndarray]


def randomise(network: Any) -> Any:
    """Gives batch norms statistics, scales and shifts of their own, and the last layers weights that tell images apart."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -0.5, 0.5), (layer.running_mean, -0.5, 0.5)):
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer.bias is not None else "relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
    return network.eval()


def pixels(*size: int) -> Tensor:
    """Two random (3, height, width) uint8 images, smooth enough that borders matter."""
    return torch.randint(256, (2, 3, *size), dtype=torch.uint8)


def of_imagenet(images: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def of_tensorflow(images: Tensor) -> Tensor:
    return images / 127.5 - 1


def converted(file: Path, kind: type[TaskModel], **options: Any) -> Any:
    """The network that the converted file holds."""
    target = file.parent / f"{file.name}.converted.safetensors"
    convert(str(file), str(target), **options)
    return kind.from_checkpoint(target)


def assert_equal(found: Tensor, expected: Tensor, within: float = 1e-4) -> float:
    """Compares outputs that are about 1 in size; the largest difference."""
    assert found.shape == expected.shape
    assert expected.std() > 0.1
    difference = float((found - expected).abs().max())
    assert difference < within * max(1.0, float(expected.abs().max())), difference
    return difference


def scheme_of(name: str, network: str = "mobilenet_v2") -> Scheme:
    return next(scheme for scheme in SCHEMES if scheme.network == network and scheme.name.startswith(name))


@torch.no_grad()
def named_by(scheme: Scheme, model: TaskModel, folded: bool = False) -> Arrays:
    """A network of ours under a library's names, in torch's layout; `folded` multiplies batch norms into the convolutions before them."""
    head = HEAD_KEYS[{"detector": "class0", "segmenter": "logits", "classifier": "classifier"}[model.kind]]
    found: Arrays = {}
    for part, keys in ((model.backbone, scheme.body), (model.head, head)):
        layers = [m for m in part.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
        convolutions = [pair for pair in pairwise([*layers, None]) if not isinstance(pair[0], nn.BatchNorm2d)]
        for key, (layer, norm) in zip(keys, convolutions, strict=False):
            conv, norm_scope = scheme.table[key]
            weight, bias = layer.weight, layer.bias
            if isinstance(norm, nn.BatchNorm2d) and folded:
                gain = norm.weight / (norm.running_var + norm.eps).sqrt()
                weight, bias = weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain
            elif isinstance(norm, nn.BatchNorm2d):
                values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
                found |= {norm_scope + ending: value.numpy().copy() for ending, value in zip(scheme.norm, values, strict=True)}
            depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
            found[conv + scheme.weight[-1 if depthwise and not folded else 0]] = weight.numpy().copy()
            if bias is not None:
                found[conv + scheme.bias] = bias.numpy().copy()
    return found


def channels_last(arrays: Arrays) -> Arrays:
    """Weights as TensorFlow and Keras lay them out."""
    found = {}
    for name, value in arrays.items():
        axes: Sequence[int] = (2, 3, 0, 1) if value.ndim == 4 and "depthwise" in name.rsplit("/", 1)[1] else (2, 3, 1, 0)
        found[name] = value.transpose(axes) if value.ndim == 4 else value.T
    return found


class ConvModule(nn.Module):
    """mmdetection's convolution with batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.linear else x.clamp(0, 6)


class Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvModule(inputs, inputs, 3, stride, inputs)
        self.pointwise_conv = ConvModule(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion > 1:
            self.expand_conv = ConvModule(inputs, hidden)
        self.depthwise_conv = ConvModule(hidden, hidden, 3, stride, hidden)
        self.linear_conv = ConvModule(hidden, outputs, linear=True)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand_conv(x) if hasattr(self, "expand_conv") else x
        y = self.linear_conv(self.depthwise_conv(y))
        return x + y if self.adds else y


class MMDetSSDLite(nn.Module):
    """The module tree of mmdetection's ssdlite_mobilenetv2_scratch_600e_coco, written from its configuration."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone, self.neck, self.bbox_head = nn.Module(), nn.Module(), nn.Module()
        self.backbone.conv1 = ConvModule(3, 32, 3, 2)
        channels = 32
        settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
        for number, (expansion, outputs, repeats, stride) in enumerate(settings, start=1):
            blocks = [Bottleneck(outputs if n else channels, outputs, expansion, 1 if n else stride) for n in range(repeats)]
            self.backbone.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = outputs
        self.backbone.conv2 = ConvModule(320, 1280)
        sides = (1280, 512, 256, 256, 128)
        self.neck.extra_layers = nn.ModuleList(
            nn.Sequential(ConvModule(inputs, outputs // 2), Separable(outputs // 2, outputs, 2)) for inputs, outputs in pairwise(sides)
        )
        for name, columns in (("cls_convs", num_classes + 1), ("reg_convs", 4)):
            layers = [nn.Sequential(ConvModule(c, c, 3, 1, c), nn.Conv2d(c, 6 * columns, 1)) for c in (96, *sides)]
            self.bbox_head.add_module(name, nn.ModuleList(layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, A, K + 1) scores with the background last, and (B, A, 4) dx dy dw dh."""
        x = self.backbone.conv1(x)
        maps = []
        for number in range(1, 8):
            x = getattr(self.backbone, f"layer{number}")(x)
            maps += [x] if number == 5 else []
        maps.append(self.backbone.conv2(x))
        for layer in self.neck.extra_layers:
            maps.append(layer(maps[-1]))
        parts = []
        for layers, columns in ((self.bbox_head.cls_convs, self.num_classes + 1), (self.bbox_head.reg_convs, 4)):
            flat = [layer(m).permute(0, 2, 3, 1).reshape(len(x), -1, columns) for layer, m in zip(layers, maps, strict=True)]
            parts.append(torch.cat(flat, dim=1))
        return parts[0], parts[1]
