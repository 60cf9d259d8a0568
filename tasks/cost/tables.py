"""What a list of models costs, as tables."""

from collections.abc import Mapping, Sequence

from torch import nn

from backbones.layers import Conv2d
from tasks.cost import memory
from tasks.cost.count import Layer, Trace, evaluation_multiply_adds, looks, parameters, parts, statistics
from tasks.cost.latency import Latency
from tasks.cost.report import Column, Part, Row, Table, kilobytes, millions, whole
from tasks.cost.sources import Source

Latencies = Mapping[str, Latency]


def cost_table(
    sources: Sequence[Source], traces: Sequence[Trace], latencies: Sequence[Latencies] = (), remarks: tuple[str, ...] = ()
) -> Table:
    """Parameters, multiply-adds, the largest tensor and, where it was measured, latency of models and their parts."""
    rows = []
    for number, (source, traced) in enumerate(zip(sources, traces, strict=True)):
        for part in parts(traced):
            counts = (part.parameters, part.statistics, part.multiply_adds)
            times = latencies[number][part.name] if latencies else ()
            if part.name == "whole":
                size, largest = "x".join(map(str, traced.size)), memory.largest(memory.held(traced))
                values = (Part(source.name), size, len(source.model.class_names), *counts, largest, *times)
                rows.append(Row(values, _notes(source, traced), first=True))
            else:
                rows.append(Row((Part(source.name, part.name), "", "", *counts, "", *times)))
    timed = (Column("ms\nmedian", _ms), Column("\n25 %", _ms), Column("\n75 %", _ms)) if latencies else ()
    columns = (
        Column("model", right=False),
        Column("input"),
        Column("classes"),
        Column("parameters", whole),
        Column("running\nstats", whole),
        Column("multiply-\nadds", lambda value: f"{millions(value)}M"),
        Column("held\nkB", kilobytes),
        *timed,
    )
    return Table("cost", "Cost of one image", columns, tuple(rows), (*_remarks(traces), *remarks))


def _notes(source: Source, traced: Trace) -> tuple[str, ...]:
    notes = list(source.notes)
    frozen = parameters([source.model], lambda parameter: not parameter.requires_grad)
    if frozen:
        notes.append(f"{frozen:,} of the parameters are frozen")
    if (count := len(looks(source.model, traced.size))) > 1:
        total = evaluation_multiply_adds(traced.model, traced.size)
        notes.append(f"Evaluation looks {count} times at an image (scales, mirror images), {total / 1e6:,.1f} M multiply-adds in all")
    return tuple(notes)


def _remarks(traces: Sequence[Trace]) -> tuple[str, ...]:
    unseen = list(dict.fromkeys(name for traced in traces for name in traced.uncounted))
    return (
        "running stats: running means and variances of batch norms, which Keras counts among the parameters.",
        f"multiply-adds: convolutions, linear layers and matrix products; not counted: {', '.join(unseen)}, and all postprocessing.",
        "held: the largest tensor that must be whole in memory, as 16-bit floats; tensors inside bottleneck blocks need not be.",
    )


def memory_table(sources: Sequence[Source], traces: Sequence[Trace]) -> Table:
    """The most channels that must be held at each resolution, as in the paper's table 3."""
    rows = []
    for source, traced in zip(sources, traces, strict=True):
        for number, ((height, width), channels) in enumerate(memory.held(traced).items()):
            size = memory.kilobytes(channels, (height, width))
            rows.append(Row((source.name, f"{height}x{width}", channels, size), first=not number))
    columns = (Column("model", right=False), Column("resolution"), Column("channels", whole), Column("kB", kilobytes))
    remarks = (
        "Held are inputs and outputs of convolutions and linear layers, and what the backbone hands on, but nothing inside bottleneck "
        "blocks, which can be computed in parts; the image and resized results are left out.",
    )
    return Table("memory", "The most channels that must be held at each resolution, 16-bit floats", columns, tuple(rows), remarks)


def layer_table(source: Source, traced: Trace) -> Table:
    """One row a layer, with parameters as Keras counts them."""
    rows = [Row(_layer_values(layer)) for layer in traced.layers]
    trainable, running = parameters([traced.model]), statistics([traced.model])
    totals = {"total": trainable + running, "trainable": trainable, "not trainable": running}
    for name, total in totals.items():
        multiply_adds = traced.multiply_adds[""] if name == "total" else None
        rows.append(Row((name, "", None, total, multiply_adds), first=name == "total"))
    columns = (
        Column("layer", right=False),
        Column("kind", right=False),
        Column("output"),
        Column("parameters", whole),
        Column("multiply-adds", whole),
    )
    height, width = traced.size
    remarks = (
        "Parameters as in Keras: a batch norm has four a channel, of which two, its running statistics, are not trainable.",
        "Padding, additions, concatenations, pooling and resizing are no layers here; they have no parameters.",
    )
    return Table(f"layers_{source.name}", f"Layers of {source.name} at {height}x{width}", columns, tuple(rows), remarks)


def _layer_values(layer: Layer) -> tuple[str, str, str, int, int]:
    channels, *sides = layer.output
    output = "x".join(map(str, (*sides, channels)))
    return layer.name, kind(layer.module), output, parameters([layer.module]) + statistics([layer.module]), layer.multiply_adds


def kind(module: nn.Module) -> str:
    """Says what a layer is: conv 3x3 /2, depthwise 3x3 rate 2, batch norm, ..."""
    if isinstance(module, nn.Conv2d):
        sides = "x".join(map(str, module.kernel_size))
        name = "depthwise" if module.groups == module.in_channels > 1 else "conv"
        stride, rate = module.stride[0], module.dilation[0]
        same = isinstance(module, Conv2d) and module.pads_asymmetrically
        return f"{name} {sides}{f' /{stride}' if stride > 1 else ''}{f' rate {rate}' if rate > 1 else ''}{' same' if same else ''}"
    names = {nn.BatchNorm2d: "batch norm", nn.Linear: "linear"}
    return next((name for cls, name in names.items() if isinstance(module, cls)), type(module).__name__)


def _ms(value: float) -> str:
    return f"{value:,.1f}"
