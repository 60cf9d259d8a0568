"""Classification networks of torchvision as backbones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones.base import Preprocessing
from backbones.foreign import build_on_cpu
from backbones.graph import GraphBackbone
from backbones.names import near
from backbones.weights import fill


class TorchvisionBackbone(GraphBackbone):
    """Any classification network of torchvision that gives feature maps, by torchvision's name.

    By default the last stage of every stride is offered, and the expanded features of inverted residuals that halve the resolution:
    `features.12`, `features.13.block.0` and `features.16` of mobilenet_v3_large, of which SSDLite takes the last two, as torchvision's own
    detector does. Every other layer is a tap too, by the names of torchvision's `get_graph_node_names`.

    Args:
        name: torchvision's name, such as mobilenet_v3_large or shufflenet_v2_x1_0.
        taps: names of the layers whose outputs to return; by default the head chooses from the stages.
        output_stride: 8, 16 or 32; below 32, later strides become dilations.
        weights: torchvision's name of published weights, such as DEFAULT or IMAGENET1K_V2, which are downloaded once; or a local file with
            torchvision's names, or a checkpoint of a run.
        strict_weights: refuse a file that lacks a parameter or has it in another shape, instead of naming what was skipped.
        settings: further arguments of torchvision's function, such as width_mult.
        freeze_bn: keep all batch norms at their loaded statistics, scale and shift.

    Raises:
        ValueError: torchvision does not know the name or refuses a setting, the network gives no maps, or weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        taps: Sequence[str] | None = None,
        output_stride: int = 32,
        weights: str | None = None,
        strict_weights: bool = True,
        settings: dict[str, Any] | None = None,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.take_apart(create(name, settings or {}), taps, output_stride, freeze_bn)
        if weights is None:
            return
        published = published_weights(name)
        recipe = published.get(weights)
        if recipe is not None:
            fill(self.network, download(recipe), weights)
        elif not Path(weights).is_file():
            raise ValueError(f"weights {weights!r} of {name} are no local file; {near(weights, list(published))}")
        elif self.load(weights, strict_weights):
            recipe = next(iter(published.values()), None)
        if recipe is not None:
            transforms = recipe.transforms()
            self.expects = Preprocessing(tuple(transforms.mean), tuple(transforms.std))


def create(name: str, settings: dict[str, Any]) -> nn.Module:
    """Builds torchvision's network.

    Raises:
        ValueError: torchvision does not know the name, or refuses a setting.
    """
    from torchvision import models

    if name not in (known := models.list_models(module=models)):
        raise ValueError(f"torchvision has no network {name!r}; {near(name, known)}")
    try:
        return build_on_cpu(lambda: models.get_model(name, weights=None, **settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"torchvision's {name} cannot be built with settings {settings}: {error}") from error


def published_weights(name: str) -> dict[str, Any]:
    """Returns torchvision's published weights of a network by their names, DEFAULT among them."""
    from torchvision import models

    return dict(models.get_model_weights(name).__members__)


def download(weights: Any) -> dict[str, Tensor]:
    """Returns published weights of torchvision by parameter names.

    Raises:
        ValueError: they cannot be downloaded.
    """
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a wrong checksum
        raise ValueError(f"weights {weights.name}: {weights.url} cannot be downloaded ({error}); give a local file instead") from error
    return tensors
