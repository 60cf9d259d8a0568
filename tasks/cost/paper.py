"""What the MobileNetV2 paper prints, and how to build the network of a row.

Sandler, Howard, Zhu, Zhmoginov and Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381. Table 3's
first row and last row are those of the first editions; the last edition prints 1/O(1), and 800K, 200K and 600K.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from backbones import MobileNetV1, MobileNetV2, NASNetA, ShuffleNetV1, TorchvisionBackbone
from heads import SSD
from tasks.cost.networks import classifier, detector, segmenter
from tasks.model import TaskModel

UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}


class Printed(NamedTuple):
    """A figure as printed.

    Attributes:
        text: the print, such as 14.8M.
        contradicted: what in the paper contradicts it; nothing does where this is empty.
        explained: what else makes our figure differ.
    """

    text: str
    contradicted: str = ""
    explained: str = ""

    @property
    def unit(self) -> str:
        """K, M, B, or nothing."""
        return self.text[-1] if self.text[-1] in UNITS else ""

    @property
    def value(self) -> float:
        """The number that is meant."""
        return float(self.text.removesuffix(self.unit)) * UNITS.get(self.unit, 1)

    def difference(self, ours: float) -> float:
        """Returns by what share of it our figure is larger."""
        return ours / self.value - 1

    def reason(self) -> tuple[str, ...]:
        """Returns what contradicts or explains it as a sentence, where something does."""
        return tuple(text[0].upper() + text[1:] for text in (self.contradicted, self.explained) if text)


class Row(NamedTuple):
    """A network of tables 4 to 7.

    Attributes:
        network: its name.
        facts: what else the table prints of it, by column.
        parameters: printed number of parameters.
        multiply_adds: printed number of multiply-adds.
        build: builds the network; None where this project has not got it.
        parts: which parts of it are counted.
        note: what is to be said of the row.
    """

    network: str
    facts: Mapping[str, str]
    parameters: Printed
    multiply_adds: Printed
    build: Callable[[], TaskModel] | None = None
    parts: tuple[str, ...] = ("whole",)
    note: str = ""


class Stage(NamedTuple):
    """A line of table 2; None stands for a dash."""

    input: tuple[int, int, int]
    operator: str
    t: int | None
    c: int | None
    n: int | None
    s: int | None


# Table 2. Inputs are height, width, channels; k is 1000 classes. The dash of the last n is one layer.
TABLE_2 = (
    Stage((224, 224, 3), "conv2d", None, 32, 1, 2),
    Stage((112, 112, 32), "bottleneck", 1, 16, 1, 1),
    Stage((112, 112, 16), "bottleneck", 6, 24, 2, 2),
    Stage((56, 56, 24), "bottleneck", 6, 32, 3, 2),
    Stage((28, 28, 32), "bottleneck", 6, 64, 4, 2),
    Stage((14, 14, 64), "bottleneck", 6, 96, 3, 1),
    Stage((14, 14, 96), "bottleneck", 6, 160, 3, 2),
    Stage((7, 7, 160), "bottleneck", 6, 320, 1, 1),
    Stage((7, 7, 320), "conv2d 1x1", None, 1280, 1, 1),
    Stage((7, 7, 1280), "avgpool 7x7", None, None, 1, None),
    Stage((1, 1, 1280), "conv2d 1x1", None, 1000, None, None),
)
BLOCKS_OF_THE_TEXT = 19

# Table 3: channels and kB by height and width, and the largest kB.
_LEAVES = (
    "table 2 has 24, 32 and 96 channels at 56x56, 28x28 and 14x14; the print has those of the blocks that leave these sizes, by which "
    "112x112 would have 24, not 16"
)
_GROUPS = (
    "400, 800 and 1600 are the channels of 2x with 2 groups; with 3 groups, ShuffleNet's table 1 has 480, 960 and 1920 at twice its width"
)
_FIRST = "not explained: the first layer has 48 channels at twice the width, and none of it is whole by the caption"
TABLE_3 = MappingProxyType(
    {
        "MobileNetV1": (
            (112, Printed("64"), Printed("1600")),
            (56, Printed("128"), Printed("800")),
            (28, Printed("256"), Printed("400")),
            (14, Printed("512"), Printed("200")),
            (7, Printed("1024"), Printed("199", "1024 channels of 7x7 are 100 kB: the print has twice that")),
            (1, Printed("1024"), Printed("2")),
        ),
        "MobileNetV2": (
            (112, Printed("16"), Printed("400")),
            (56, Printed("32", _LEAVES), Printed("200")),
            (28, Printed("64", _LEAVES), Printed("100")),
            (14, Printed("160", _LEAVES), Printed("62")),
            (7, Printed("320"), Printed("32")),
            (1, Printed("1280"), Printed("2")),
        ),
        "ShuffleNet (2x, g=3)": (
            (112, Printed("32", explained=_FIRST), Printed("800")),
            (56, Printed("48"), Printed("300")),
            (28, Printed("400", explained=_GROUPS), Printed("600")),
            (14, Printed("800", explained=_GROUPS), Printed("310")),
            (7, Printed("1600", explained=_GROUPS), Printed("156")),
            (1, Printed("1600", explained=_GROUPS), Printed("3")),
        ),
    }
)
TABLE_3_LARGEST = MappingProxyType(
    {
        "MobileNetV1": Printed("1600"),
        "MobileNetV2": Printed("400"),
        "ShuffleNet (2x, g=3)": Printed("600", "the largest cell of the column is 800"),
    }
)

# Table 4. CPU is one large core of a Pixel 1 with TensorFlow Lite.
TABLE_4 = (
    Row(
        "MobileNetV1",
        {"top-1": "70.6", "CPU": "113 ms"},
        Printed("4.2M"),
        Printed("575M", explained="MobileNetV1's own paper prints 569 M multiply-adds, which is the count here"),
        lambda: classifier(MobileNetV1()),
    ),
    Row(
        "ShuffleNet (1.5)",
        {"top-1": "71.5", "CPU": "-"},
        Printed("3.4M"),
        Printed("292M"),
        lambda: classifier(ShuffleNetV1(width_mult=1.5, groups=3)),
    ),
    Row(
        "ShuffleNet (x2)",
        {"top-1": "73.7", "CPU": "-"},
        Printed("5.4M"),
        Printed("524M"),
        lambda: classifier(ShuffleNetV1(width_mult=2.0, groups=3)),
    ),
    Row("NASNet-A", {"top-1": "74.0", "CPU": "183 ms"}, Printed("5.3M"), Printed("564M"), lambda: classifier(NASNetA())),
    Row(
        "MobileNetV2",
        {"top-1": "72.0", "CPU": "75 ms"},
        Printed("3.4M", "table 2 has 3.50 M parameters with 1000 classes"),
        Printed("300M"),
        lambda: classifier(MobileNetV2(["layer19"])),
    ),
    Row(
        "MobileNetV2 (1.4)",
        {"top-1": "74.7", "CPU": "143 ms"},
        Printed("6.9M", "table 2 at width 1.4 has 6.11 M parameters with 1000 classes; the text's range up to 6.9 M has the same error"),
        Printed("585M"),
        lambda: classifier(MobileNetV2(["layer19"], width_mult=1.4)),
    ),
)

# Table 5.
_SSD_PARTS = ("extra layers", "prediction layers")
TABLE_5 = (
    Row("SSD", {}, Printed("14.8M"), Printed("1.25B"), lambda: detector(MobileNetV2(), SSD), _SSD_PARTS),
    Row(
        "SSDLite",
        {},
        Printed("2.1M"),
        Printed("0.35B", "table 6 prints 0.8 B for the whole network, whose backbone alone has 0.61 B at 320 x 320"),
        lambda: detector(MobileNetV2()),
        _SSD_PARTS,
    ),
)

# Table 6. AP on COCO's test-dev.
TABLE_6 = (
    Row("SSD300", {"AP": "23.2", "CPU": "-"}, Printed("36.1M"), Printed("35.2B")),
    Row("SSD512", {"AP": "26.8", "CPU": "-"}, Printed("36.1M"), Printed("99.5B")),
    Row("YOLOv2", {"AP": "21.6", "CPU": "-"}, Printed("50.7M"), Printed("17.5B")),
    Row("MobileNetV1 + SSDLite", {"AP": "22.2", "CPU": "270 ms"}, Printed("5.1M"), Printed("1.3B"), lambda: detector(MobileNetV1())),
    Row("MobileNetV2 + SSDLite", {"AP": "22.1", "CPU": "200 ms"}, Printed("4.3M"), Printed("0.8B"), lambda: detector(MobileNetV2())),
)

# Table 7. MF: six scales and mirror images. Atrous rates are given at output stride 16, as in DeepLabv3's paper.
_RATES = (6, 12, 18)
_RATIO = (
    "the text has 4.9 to 5.7 times fewer multiply-adds than ResNet-101; the table has 5.2 and 5.7, and by the filled count of 990.8 B it "
    "would have 4.9"
)
_RESNET = (
    "torchvision's ResNet-101 is not quite the paper's: resnet_v1_101_beta of TensorFlow's slim begins with three 3x3 convolutions, halves "
    "the resolution at the end of its stages and has rates 2, 4 and 8 in the last one; it has 58,164,437 parameters, and filled 80.83 and "
    "4,868.9 B multiply-adds"
)
TABLE_7 = (
    Row(
        "MobileNetV1",
        {"OS": "16", "ASPP": "yes", "MF": "-", "mIoU": "75.29"},
        Printed("11.15M"),
        Printed("14.25B"),
        lambda: segmenter(MobileNetV1(output_stride=16), _RATES),
    ),
    Row(
        "MobileNetV1",
        {"OS": "8", "ASPP": "yes", "MF": "yes", "mIoU": "78.56"},
        Printed("11.15M"),
        Printed("941.9B", _RATIO),
        lambda: segmenter(MobileNetV1(output_stride=8), _RATES, multi_scale=True),
    ),
    Row(
        "MobileNetV2",
        {"OS": "16", "ASPP": "yes", "MF": "-", "mIoU": "75.70"},
        Printed("4.52M"),
        Printed("5.8B"),
        lambda: segmenter(MobileNetV2(["layer18"], output_stride=16), _RATES),
    ),
    Row(
        "MobileNetV2",
        {"OS": "8", "ASPP": "yes", "MF": "yes", "mIoU": "78.42"},
        Printed("4.52M"),
        Printed("387B"),
        lambda: segmenter(MobileNetV2(["layer18"], output_stride=8), _RATES, multi_scale=True),
    ),
    Row(
        "MobileNetV2",
        {"OS": "16", "ASPP": "-", "MF": "-", "mIoU": "75.32"},
        Printed("2.11M"),
        Printed("2.75B"),
        lambda: segmenter(MobileNetV2(["layer18"], output_stride=16)),
    ),
    Row(
        "MobileNetV2",
        {"OS": "8", "ASPP": "-", "MF": "yes", "mIoU": "77.33"},
        Printed("2.11M"),
        Printed("152.6B"),
        lambda: segmenter(MobileNetV2(["layer18"], output_stride=8), multi_scale=True),
    ),
    Row(
        "ResNet-101",
        {"OS": "16", "ASPP": "yes", "MF": "-", "mIoU": "80.49"},
        Printed("58.16M"),
        Printed("81.0B"),
        lambda: segmenter(TorchvisionBackbone("resnet101", output_stride=16), _RATES),
        note=_RESNET,
    ),
    Row(
        "ResNet-101",
        {"OS": "8", "ASPP": "yes", "MF": "yes", "mIoU": "82.70"},
        Printed("58.16M"),
        Printed("4870.6B"),
        lambda: segmenter(TorchvisionBackbone("resnet101", output_stride=8), _RATES, multi_scale=True),
        note=_RESNET,
    ),
)
