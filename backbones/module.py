"""Networks of one's own, as plain torch modules, as backbones."""

import importlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from backbones.foreign import build_on_cpu
from backbones.graph import GraphBackbone


class ModuleBackbone(GraphBackbone):
    """A torch module of one's own that turns (B, 3, H, W) images into anything, and the layers of it whose outputs are features.

    The module must be one that `torch.fx` can trace: its forward may not depend on values or sizes. What lies behind the last tap is
    dropped. Channels and strides are measured.

    Args:
        network: class path of the module, such as mynets.TinyNet, with mynets.py in the working directory or installed.
        taps: names of the layers whose outputs are the features; by default the last of every stride, of which the head chooses.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        weights: a local file with the module's names, or a checkpoint of a run.
        strict_weights: refuse a file that lacks a parameter or has it in another shape, instead of naming what was skipped.
        settings: the module's arguments.
        freeze_bn: keep all batch norms at their loaded statistics, scale and shift.

    Raises:
        ValueError: the class cannot be imported, is no torch module or refuses its arguments, it cannot be traced, a layer is unknown or
            gives no map of a whole stride, or weights cannot be had.
    """

    def __init__(
        self,
        network: str,
        taps: Sequence[str] | None = None,
        output_stride: int = 32,
        weights: str | None = None,
        strict_weights: bool = True,
        settings: dict[str, Any] | None = None,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.take_apart(create(network, settings or {}), taps, output_stride, freeze_bn)
        if weights is not None:
            self.load(weights, strict_weights)


def create(class_path: str, settings: dict[str, Any]) -> nn.Module:
    """Builds a torch module by its class path.

    Raises:
        ValueError: there is no such class, it is no torch module, or it refuses its arguments.
    """
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"network {class_path!r} cannot be imported: {error}; accepted: class paths such as mynets.TinyNet") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"network {class_path!r} is no torch.nn.Module class; accepted: class paths such as mynets.TinyNet")
    try:
        return build_on_cpu(lambda: cls(**settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"network {class_path} cannot be built with settings {settings}: {error}") from error
