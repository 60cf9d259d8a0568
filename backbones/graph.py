"""Feature extractors from plain networks, by torchvision's graph tool."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from backbones.base import Tap
from backbones.foreign import ForeignBackbone
from backbones.layout import STRIDES, Layer, expansions, finest_first
from backbones.names import near


class GraphBackbone(ForeignBackbone):
    """A backbone around a plain network, of which it keeps the part that computes its taps."""

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the outputs of the tapped layers for (B, 3, H, W) images."""
        found: dict[str, Tensor] = self.network(images)
        return found

    def cut(self) -> None:
        """Drops the layers that no tap needs."""
        narrow(self.network, self.taps)
        super().cut()

    def take_apart(self, network: nn.Module, taps: Sequence[str] | None, output_stride: int, freeze_bn: bool) -> None:
        """Keeps the part of a network that computes the taps, by default its stages.

        Raises:
            ValueError: a tap is no layer or no map, the network has no stages, or the output stride cannot be had.
        """
        self.network = network
        offered = stages(network, self.layers()) if taps is None else {}
        if taps is None and not offered:
            raise ValueError(f"{self.title} has no layers that give (B, C, H, W) maps of stride {', '.join(map(str, STRIDES))}")
        self.network = extract(network, list(offered) if taps is None else taps, self.title)
        self.settle(offered or self.measure(taps), taps, output_stride, freeze_bn)


def stages(network: nn.Module, layers: list[Layer]) -> dict[str, Tap]:
    """Returns the last stage of every stride, and where 1x1 layers follow the last one, as they do for classification, the last of these.

    Stages are the parts of the network, and the parts of those lists of layers that change the resolution (`features` of MobileNetV2).
    Where inverted residuals halve the resolution, their expanded features are returned too.

    Args:
        network: the network.
        layers: its layers, from `watch`.
    """
    names = {name for child, module in network.named_children() for name in _parts(child, module, layers)}
    runs = Counter(layer.name for layer in layers)  # one activation may serve many places
    units = [layer for layer in layers if layer.name in names and runs[layer.name] == 1 and layer.stride in STRIDES]
    if not units:
        return {}
    coarsest = max(unit.stride or 0 for unit in units)
    last = [unit for unit in units if unit.stride == coarsest]
    spatial = [unit for unit in last if _sees_neighbours(unit.module)] or last
    behind = last[last.index(spatial[-1]) + 1 :]
    pointwise = any(isinstance(module, nn.Conv2d) for unit in behind for module in unit.module.modules())
    ends = [unit for unit in units if unit not in behind] if pointwise else units
    chosen = {unit.stride: unit for unit in ends}.values()
    taps = {unit.name: Tap(unit.channels, unit.stride or 0) for unit in chosen}
    found = finest_first(taps | expansions(layers, taps))
    return found | {behind[-1].name: Tap(behind[-1].channels, coarsest, block=False)} if pointwise else found


def _parts(name: str, module: nn.Module, layers: Sequence[Layer]) -> list[str]:
    parts = [f"{name}.{child}" for child, _ in module.named_children()]
    strides = {layer.stride for layer in layers if layer.name in parts}
    return parts if isinstance(module, (nn.Sequential, nn.ModuleList)) and len(strides) > 1 else [name]


def _sees_neighbours(module: nn.Module) -> bool:
    kernels = [layer.kernel_size for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return any(size > 1 for kernel in kernels for size in kernel)


def extract(network: nn.Module, names: Sequence[str], title: str) -> nn.Module:
    """Returns the part of a network that computes these layers' outputs, as a module that returns them by name.

    Args:
        network: the network; it is not run.
        names: names of layers, or of operations as torchvision's `get_graph_node_names` calls them.
        title: name of the network for messages.

    Raises:
        ValueError: there is no such layer, or the network cannot be traced.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    try:
        known = layer_names(network)
        if not (unknown := [name for name in names if name not in known]) and names:
            extractor: nn.Module = create_feature_extractor(network, {name: name for name in names}, suppress_diff_warning=True)
            return extractor
    except Exception as error:  # tracing runs the network's own code
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{title} cannot be taken apart, because torch cannot trace what it does: {reason}") from error
    raise ValueError(f"taps {unknown} cannot be had; accepted: one or more layers of {title}; {near(next(iter(unknown), ''), known)}")


def layer_names(network: nn.Module) -> list[str]:
    """Returns the names of all layers and operations that a network runs in training and in evaluation, in order."""
    from torchvision.models.feature_extraction import get_graph_node_names

    training, evaluation = get_graph_node_names(network, suppress_diff_warning=True)
    both = set(evaluation)
    paths = [name.split(".") for name in training if name in both]
    return list(dict.fromkeys(".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)))


def narrow(extractor: Any, names: Iterable[str]) -> None:
    """Drops what an extractor computes for other outputs than these, in training and in evaluation."""
    wanted, was = list(names), extractor.training
    for mode in (True, False):
        extractor.train(mode)  # each has its own graph
        (output,) = [node for node in extractor.graph.nodes if node.op == "output"]
        output.args = ({name: output.args[0][name] for name in wanted},)
        extractor.graph.eliminate_dead_code()
        extractor.recompile()
    extractor.delete_all_unused_submodules()
    extractor.train(was)
