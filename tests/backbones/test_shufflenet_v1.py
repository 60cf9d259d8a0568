"""ShuffleNet against its paper."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from backbones import ShuffleNetV1
from backbones.shufflenet_v1 import ShuffleUnit, shuffle
from tests.backbones.contract import BackboneContract, randomise


class TestShuffleNetV1(BackboneContract):
    def build(self, **arguments: Any) -> ShuffleNetV1:
        return ShuffleNetV1(width_mult=0.5, **arguments)


# Table 1 of the paper: output channels of stages 2 to 4, and millions of multiply-adds.
TABLE_1 = {
    1: ((144, 288, 576), 143),
    2: ((200, 400, 800), 140),
    3: ((240, 480, 960), 137),
    4: ((272, 544, 1088), 133),
    8: ((384, 768, 1536), 137),
}


@torch.no_grad()
def classifier_multiply_adds(backbone: ShuffleNetV1) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        features = backbone.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2 + features["layer18"].shape[1] * 1000


@pytest.mark.parametrize("groups", list(TABLE_1))
def test_table_1(groups: int) -> None:
    channels, millions = TABLE_1[groups]
    with torch.device("meta"):
        backbone = ShuffleNetV1(groups=groups)
    found = [(tap.channels, tap.stride) for tap in backbone.taps.values()]
    assert found == [(24, 2), (24, 4)] + [(c, s) for c, s, n in zip(channels, (8, 16, 32), (4, 8, 4), strict=True) for _ in range(n)]
    # The paper rounds some figures down and some up.
    assert classifier_multiply_adds(backbone) / 1e6 == pytest.approx(millions, abs=1.5)


# Tables 2 and 5 of the paper.
@pytest.mark.parametrize(("width", "millions"), [(0.5, 38), (1.5, 292), (2.0, 524)])
def test_widths_cost_what_the_paper_prints(width: float, millions: float) -> None:
    with torch.device("meta"):
        backbone = ShuffleNetV1(width_mult=width)
    assert classifier_multiply_adds(backbone) / 1e6 == pytest.approx(millions, abs=0.5)


def test_shuffle_gives_every_group_channels_of_every_group() -> None:
    channels = torch.arange(12.0).view(1, 12, 1, 1)
    assert shuffle(channels, 3).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert torch.equal(shuffle(channels, 1), channels)


@pytest.mark.parametrize("groups", [3, 8])
def test_shuffle_equals_torchs(groups: int) -> None:
    features = torch.randn(2, 24, 3, 5)
    assert torch.equal(shuffle(features, groups), nn.functional.channel_shuffle(features, groups))


def test_groups_of_convolutions() -> None:
    units = [module for module in ShuffleNetV1(groups=3).modules() if isinstance(module, ShuffleUnit)]
    # "We do not apply group convolution on the first pointwise layer" of stage 2.
    assert [unit.reduce[0].groups for unit in units] == [1] + [3] * 15
    assert {unit.expand[0].groups for unit in units} == {3}
    # Bottlenecks have a quarter of the unit's channels (section 3.3).
    assert [unit.reduce[0].out_channels for unit in units] == [60] * 4 + [120] * 8 + [240] * 4


@torch.no_grad()
def test_first_unit_of_a_stage_hands_on_what_it_pools() -> None:
    backbone = ShuffleNetV1(["layer6", "layer7"]).eval()
    features = backbone(torch.randn(1, 3, 97, 65))
    assert_close(features["layer7"][:, :240], F.avg_pool2d(features["layer6"], 3, 2, 1))


@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_atrous_features_contain_the_strided_ones(output_stride: int) -> None:
    names = ["layer14", "layer18"]
    strided, atrous = (ShuffleNetV1(names, 0.5, output_stride=stride).eval() for stride in (32, output_stride))
    randomise(strided)
    atrous.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 97, 65)
    dense, sparse = atrous(images), strided(images)
    for name, tap in atrous.taps.items():
        step = strided.taps[name].stride // tap.stride
        assert_close(dense[name][:, :, ::step, ::step], sparse[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", list(TABLE_1))
@pytest.mark.parametrize("width", [0.5, 1.0, 1.5, 2.0])
def test_every_width_can_have_every_number_of_groups(width: float, groups: int) -> None:
    with torch.device("meta"):
        features: dict[str, Tensor] = ShuffleNetV1(["layer18"], width, groups)(torch.empty(1, 3, 33, 33))
    assert features["layer18"].shape == (1, int(4 * TABLE_1[groups][0][0] * width), 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 5}, "groups 5 is not possible; accepted: 1, 2, 3, 4, 8"),
        ({"width_mult": 0.3}, r"width_mult 0\.3 is not possible; accepted: 0\.5, 1\.0, 1\.5, 2\.0"),
        ({"frozen_layers": 19}, "frozen_layers 19 is not possible; accepted: 0 to 18, the layers built"),
        ({"weights": "imagenet"}, "weights 'imagenet' of shufflenet_v1 are not published; accepted: a local file"),
    ],
)
def test_errors_name_the_value_and_what_is_accepted(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShuffleNetV1(**arguments)
