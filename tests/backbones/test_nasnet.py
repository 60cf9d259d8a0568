"""NASNet-A against its paper and timm's NASNet-A (6 @ 4032)."""

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
import timm
import torch
from timm.models.nasnet import NASNetALarge
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from backbones import NASNetA, Tap
from backbones.nasnet import NormalCell, Pool, ReductionCell
from tests.backbones.contract import BackboneContract
from tests.backbones.test_mobilenet_v2 import randomise


class TestNASNetA(BackboneContract):
    output_strides: ClassVar[tuple[int, ...]] = ()

    def build(self, **arguments: Any) -> NASNetA:
        return NASNetA(repeats=1, penultimate_channels=96, stem_channels=8, **arguments)


def test_mobile_network_of_the_paper() -> None:
    """Table 2 of NASNet's paper: 4 @ 1056 has 5.3 M parameters and 564 M multiply-adds with 1000 classes at 224."""
    with torch.device("meta"):
        backbone = NASNetA().eval()
        images = torch.empty(1, 3, 224, 224)
    counter = FlopCounterMode(display=False)
    with counter:
        backbone(images)
    # Keras's NASNetMobile counts 5,289,978 trainable parameters too.
    assert sum(parameter.numel() for parameter in backbone.parameters()) + 1057 * 1000 == 5_289_978
    assert counter.get_total_flops() / 2 + 1056 * 1000 == pytest.approx(564e6, rel=1e-3)
    found = [(tap.channels, tap.stride) for tap in backbone.taps.values()]
    stages = [(264, 8)] * 4 + [(352, 16)] + [(528, 16)] * 4 + [(704, 32)] + [(1056, 32)] * 4
    assert found == [(32, 2), (44, 4), (88, 8), *stages]


def tensors(module: nn.Module, names: Iterable[str]) -> list[Tensor]:
    """Those of these parts of a cell, in order."""
    return [tensor for name in names for tensor in module.get_submodule(name).state_dict().values()]


# What timm calls the parts of cells, in the order of ours.
SEPARABLE = {"left_0": "comb_iter_0_left", "right_0": "comb_iter_0_right", "left_4": "comb_iter_4_left"}
NORMAL = SEPARABLE | {"left_1": "comb_iter_1_left", "right_1": "comb_iter_1_right"}
REDUCTION = SEPARABLE | {"right_1": "comb_iter_1_right", "right_2": "comb_iter_2_right"}
HALVING = {"previous.even": "path_1.conv", "previous.odd": "path_2.conv", "previous.norm": "final_path_bn"}


def parts(ours: nn.Module, theirs: nn.Module) -> dict[str, str]:
    names = {"current": "conv_1x1"} | (NORMAL if isinstance(ours, NormalCell) else REDUCTION)
    if hasattr(theirs, "path_1"):
        return names | HALVING
    return names | ({"previous": "conv_prev_1x1"} if hasattr(theirs, "conv_prev_1x1") else {})


def copy_cell(ours: nn.Module, theirs: nn.Module) -> None:
    names = parts(ours, theirs)
    wanted, given = (tensors(cell, part) for cell, part in ((ours, names), (theirs, names.values())))
    assert len(wanted) == len(ours.state_dict()) == len(theirs.state_dict())
    for mine, other in zip(wanted, given, strict=True):
        mine.copy_(other)


@torch.no_grad()
def large(padding: Any, **settings: Any) -> tuple[NASNetA, NASNetALarge]:
    """NASNet-A with the structure of 6 @ 4032 and a sixth of its channels, ours with timm's weights."""
    theirs = NASNetALarge(num_classes=2, num_features=672, pad_type="same" if padding == "same" else "").eval()
    randomise(theirs)
    ours = NASNetA(repeats=6, penultimate_channels=672, stem_channels=96, skip_reduction=True, padding=padding, **settings).eval()
    cells = [getattr(theirs, name) for name in theirs.layer_names if name != "act"]
    for mine, other in zip(ours.features, cells, strict=True):
        if isinstance(mine, (NormalCell, ReductionCell)):
            copy_cell(mine, other)
        else:
            mine.load_state_dict(dict(zip(mine.state_dict(), other.state_dict().values(), strict=True)))
    return ours, theirs


@pytest.mark.parametrize("size", [(65, 97), (66, 98), (50, 71)])
@torch.no_grad()
def test_equals_timms_large_network(size: tuple[int, int]) -> None:
    ours, theirs = large("symmetric")
    ours.features[0][0].padding = (0, 0)  # where the original has none
    images = torch.randn(1, 3, *size)
    assert_close(ours(images)["layer23"], theirs.forward_features(images), rtol=1e-4, atol=1e-4)


def test_has_the_parameters_of_timms_large_network() -> None:
    with torch.device("meta"):
        theirs = timm.create_model("nasnetalarge", num_classes=0)
        ours = NASNetA(repeats=6, penultimate_channels=4032, stem_channels=96, skip_reduction=True)
    assert sorted(t.shape for t in ours.state_dict().values()) == sorted(t.shape for t in theirs.state_dict().values())


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (8, 7), (1, 2), (2, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("average", [True, False])
def test_pooling_with_tensorflows_padding(average: bool, stride: int, size: tuple[int, int]) -> None:
    features = torch.randn(1, 2, *size)
    pads = [max((-(-side // stride) - 1) * stride + 3 - side, 0) for side in size]
    sides = [side for pad in reversed(pads) for side in (pad // 2, pad - pad // 2)]
    if average:
        summed, count = (F.avg_pool2d(F.pad(values, sides), 3, stride) for values in (features, torch.ones_like(features)))
        expected = summed / count
    else:
        expected = F.max_pool2d(F.pad(features, sides, value=float("-inf")), 3, stride)
    assert_close(Pool(average, stride, "same")(features), expected)


def test_layers_past_the_last_tap_are_not_there() -> None:
    backbone = NASNetA(repeats=2, penultimate_channels=96)
    backbone.keep(["layer6"])
    assert (len(backbone.features), backbone.taps) == (6, {"layer6": Tap(32, 16)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penultimate_channels": 1000}, "penultimate_channels 1000 is not possible; accepted: multiples of 96"),
        ({"penultimate_channels": 0}, "penultimate_channels 0 is not possible; accepted: multiples of 96"),
        ({"repeats": 0}, "repeats 0 is not possible; accepted: 1 or more cells"),
        ({"padding": "valid"}, "padding 'valid' is unknown; accepted: 'symmetric', 'same'"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NASNetA(**arguments)
