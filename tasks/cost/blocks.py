"""Tables 1 to 3 of the paper beside the blocks of the network that is built."""

from collections.abc import Callable, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from backbones import MobileNetV1, MobileNetV2, ShuffleNetV1
from tasks.classify.model import Classifier
from tasks.cost import memory, paper
from tasks.cost.count import Layer, Trace, trace
from tasks.cost.memory import Block
from tasks.cost.networks import classifier
from tasks.cost.paper import Printed, Stage
from tasks.cost.report import Column, Row, Table, kilobytes, millions, percent, printed
from tasks.model import TaskModel

# Kernel size of all depthwise convolutions (paper, section 4).
KERNEL = 3


def mobilenet_v2() -> Classifier:
    """The network of table 2, with 1000 classes at 224 x 224."""
    return classifier(MobileNetV2(["layer19"]))


class Counted(NamedTuple):
    """A network of table 3, and how what it holds is counted.

    Attributes:
        build: builds the network.
        in_parts: layers that are computed in parts beside the bottlenecks, each with what follows it.
        by_block: whether the print seems to count by blocks.
    """

    build: Callable[[], TaskModel]
    in_parts: tuple[str, ...] = ()
    by_block: bool = False


COUNTED: Mapping[str, Counted] = MappingProxyType(
    {
        "MobileNetV1": Counted(lambda: classifier(MobileNetV1())),
        "MobileNetV2": Counted(mobilenet_v2, ("backbone.features.0.0", "backbone.features.18.0"), by_block=True),
        "ShuffleNet (2x, g=3)": Counted(lambda: classifier(ShuffleNetV1(width_mult=2.0, groups=3)), ("backbone.features.0.0",)),
    }
)
Channels = Mapping[memory.Resolution, int]


def paper_network() -> Trace:
    """Traces the network of table 2."""
    with torch.device("meta"):
        model = mobilenet_v2()
    return trace(model, model.size)


def formula(block: Block) -> int:
    """Multiply-adds of a block by section 3.3 of the paper, h w k t (k + d^2 + k'), which knows no stride."""
    (k, h, w), wide, out = block.input, block.layers[-1].input[0], block.output[0]
    return h * w * wide * (k + KERNEL**2 + out)


def by_shapes(block: Block) -> int:
    """Multiply-adds of a block by the shapes of table 1: the depthwise convolution and what follows have h / s by w / s cells."""
    (k, h, w), wide, (out, h_out, w_out) = block.input, block.layers[-1].input[0], block.output
    return h * w * k * wide + h_out * w_out * wide * (KERNEL**2 + out)


def shape(channels_first: tuple[int, ...]) -> str:
    """(24, 56, 56) as 56x56x24."""
    channels, *sides = channels_first
    return "x".join(map(str, (*sides, channels)))


def table_1() -> Table:
    """The bottleneck block: shapes and multiply-adds of all 17."""
    rows = []
    for number, block in enumerate(memory.blocks(paper_network()), start=2):
        wide, stride = block.layers[-1].input, block.input[1] // block.output[1]
        t = wide[0] // block.input[0]
        notes = []
        if t == 1:
            notes.append("Table 2's first block has t = 1 and, as built, no expansion; the formula counts one")
        if stride > 1:
            notes.append("The formula has no stride; by the shapes of table 1 it would be the multiply-adds counted")
        counted = block.multiply_adds
        shapes = (shape(block.input), shape((wide[0], *block.input[1:])), shape(wide), shape(block.output))
        values = (f"layer{number}", t, stride, *shapes, formula(block), counted, counted / formula(block) - 1)
        rows.append(Row(values, tuple(notes)))
    columns = (
        Column("block", right=False),
        Column("t"),
        Column("s"),
        Column("input\nh x w x k"),
        Column("1x1\nh x w x tk"),
        Column("3x3 depthwise\nh/s x w/s x tk"),
        Column("linear 1x1\nh/s x w/s x k'"),
        Column("multiply-adds, M\npaper", millions),
        Column("\nours", millions),
        Column("\ndiff", percent),
    )
    title = "Table 1: the bottleneck block; multiply-adds by section 3.3, h w k t (k + 9 + k')"
    return Table("table_1", title, columns, tuple(rows))


def stages(traced: Trace) -> list[Stage]:
    """Reads the lines of table 2 from the network that is built."""
    found = memory.blocks(traced)
    first, *_, last, linear = (layer for layer in traced.layers if isinstance(layer.module, (nn.Conv2d, nn.Linear)))
    lines = [_single("conv2d", first)]
    for (t, c), group in groupby(found, key=lambda block: (block.layers[-1].input[0] // block.input[0], block.output[0])):
        blocks = list(group)
        stride = blocks[0].input[1] // blocks[0].output[1]
        lines.append(Stage(_last_channels(blocks[0].input), "bottleneck", t, c, len(blocks), stride))
    channels, height, width = last.output
    lines += [_single("conv2d 1x1", last), Stage((height, width, channels), f"avgpool {height}x{width}", None, None, 1, None)]
    return [*lines, Stage((1, 1, linear.input[0]), "conv2d 1x1", None, linear.output[0], None, None)]


def _single(operator: str, layer: Layer) -> Stage:
    return Stage(_last_channels(layer.input), operator, None, layer.output[0], 1, layer.input[1] // layer.output[1])


def _last_channels(channels_first: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = channels_first
    return height, width, channels


def table_2() -> Table:
    """The architecture."""
    network = paper_network()
    rows = []
    for theirs, ours in zip(paper.TABLE_2, stages(network), strict=True):
        pairs = [value for pair in zip(theirs[2:], ours[2:], strict=True) for value in pair]
        sizes = ["x".join(map(str, stage.input)) for stage in (theirs, ours)]
        rows.append(Row((theirs.operator, *sizes, *pairs, "equal" if theirs == ours else "differs")))
    figures = [column for name in "tcns" for column in (Column(f"{name}\npaper"), Column("\nours"))]
    columns = (Column("operator", right=False), Column("input\npaper"), Column("\nours"), *figures, Column("difference", right=False))
    built = len(memory.blocks(network))
    remark = f"The text of section 4 counts {paper.BLOCKS_OF_THE_TEXT} bottleneck blocks: table 2 has {built}, and so has the network here."
    return Table("table_2", "Table 2: the architecture at 224 x 224 with k = 1000 classes", columns, tuple(rows), (remark,))


def table_3() -> Table:
    """Memory: the most channels, and their kB, that must be held at each resolution."""
    rows = [row for name in paper.TABLE_3 for row in _memory_rows(name)]
    columns = (
        Column("network", right=False),
        Column("size"),
        Column("paper\nchannels", printed),
        Column("\nkB", printed),
        Column("\nin fact", kilobytes),
        Column("ours\nchannels"),
        Column("\nkB", kilobytes),
        Column("\ndiff", percent),
        Column("by block\nchannels"),
        Column("\nkB", kilobytes),
    )
    remarks = (
        "in fact: what the printed channels take in units of 1,000 bytes; the print is rounded up and down.",
        "ours: what goes into and comes out of layers and blocks. MobileNetV1's layers are all whole. Of MobileNetV2 the tensors inside "
        "blocks are never whole; the first layer (32 channels of 112x112, 803 kB) is computed in parts too, as the caption says, and so is "
        "the last one (1280 channels of 7x7, 125 kB) with the pooling. Of ShuffleNet what goes into a unit and what comes out are whole, "
        "for its shortcuts; its bottlenecks are not, nor is the first layer (48 channels of 112x112, 1,204 kB), as the caption says.",
        "by block: outputs of the blocks whose inputs have that size, the rule that the print of MobileNetV2 seems to follow.",
        "The last edition of the paper prints 1/O(1) in the first row, and 800K, 200K and 600K as the largest.",
    )
    return Table("table_3", "Table 3: the most channels that must be held at each resolution, 16-bit floats", columns, tuple(rows), remarks)


def _memory_rows(name: str) -> list[Row]:
    ours, leaving = _held(name)
    rows: list[Row] = []
    sizes: list[float] = []
    for side, channels, size in paper.TABLE_3[name]:
        sizes.append(memory.kilobytes(int(channels.value), (side, side)))
        count, held = _cell(ours, (side, side))
        values = (name, f"{side}x{side}", channels, size, sizes[-1], count, held, _difference(held, size), *_cell(leaving, (side, side)))
        rows.append(Row(values, (*channels.reason(), *size.reason()), first=not rows))
    most = paper.TABLE_3_LARGEST[name]
    held, by_block = (memory.largest(channels) if channels else None for channels in (ours, leaving))
    rows.append(Row((name, "max", None, most, max(sizes), None, held, _difference(held, most), None, by_block), most.reason()))
    return rows


def _held(name: str) -> tuple[Channels, Channels]:
    """What a network of table 3 holds, and what its blocks leave where the print seems to have that."""
    counted = COUNTED[name]
    with torch.device("meta"):
        model = counted.build()
    traced = trace(model, model.size)
    return memory.held(traced, counted.in_parts), memory.leaving(traced) if counted.by_block else {}


def _cell(channels: Channels, place: memory.Resolution) -> tuple[int | None, float | None]:
    count = channels.get(place)
    return (count, memory.kilobytes(count, place)) if count else (None, None)


def _difference(ours: float | None, theirs: Printed) -> float | None:
    return None if ours is None else theirs.difference(ours)
