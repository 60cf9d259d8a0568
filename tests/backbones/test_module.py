"""Plain torch modules as backbones."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones import Backbone, ModuleBackbone, Tap
from tests.backbones.contract import BackboneContract, outputs, randomise

HERE = __name__


class PlainNet(nn.Module):
    """A classifier as people write it: a residual block of a stride each, pooling, and a linear layer."""

    def __init__(self, width: int = 8, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.blocks = nn.ModuleList(Block(width * 2**n, width * 2 ** (n + 1)) for n in range(4))
        self.linear = nn.Linear(width * 16, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        scores: Tensor = self.linear(features.mean((2, 3)))
        return scores


class Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, 2, 1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, 1, 1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))

    def forward(self, features: Tensor) -> Tensor:
        reduced: Tensor = self.reduce(features)
        return reduced + self.refine(reduced)


class FixedNet(nn.Sequential):
    """Takes images of one size, and its maps have odd numbers of cells."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1), nn.Flatten(), nn.Linear(8 * 14 * 14, 5))


class DecidingNet(PlainNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else -images)


class SharingNet(nn.Module):
    """Uses one activation everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(channels, 8, 3, 2, 1) for channels in (3, 8, 8))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.third(self.relu(self.second(self.relu(self.first(images)))))
        return features


class TestPlainNet(BackboneContract):
    def build(self, **arguments: Any) -> Backbone:
        return ModuleBackbone(f"{HERE}.PlainNet", settings={"width": 4}, **arguments)


@torch.no_grad()
def test_layers_are_taps_and_the_rest_goes(tmp_path: Path) -> None:
    theirs = PlainNet().eval()
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = ModuleBackbone(f"{HERE}.PlainNet", ["blocks.1", "blocks.2.reduce"], weights=str(tmp_path / "weights.pth"))
    assert ours.taps == {"blocks.1": Tap(32, 8), "blocks.2.reduce": Tap(64, 16)}
    assert not [name for name in ours.state_dict() if "blocks.3" in name or "linear" in name or "blocks.2.refine" in name]
    images = torch.randn(1, 3, 65, 64)
    found = outputs(ours, images)
    features = theirs.blocks[1](theirs.blocks[0](theirs.stem(images)))
    assert torch.equal(found["blocks.1"], features)
    assert torch.equal(found["blocks.2.reduce"], theirs.blocks[2].reduce(features))


def test_a_layer_that_runs_twice_is_no_stage() -> None:
    assert list(ModuleBackbone(f"{HERE}.SharingNet").taps) == ["first", "second", "third"]


def test_copies_of_what_was_kept_train_alone() -> None:
    original = ModuleBackbone(f"{HERE}.PlainNet")
    original.keep(["blocks.1"])
    twin, images = copy.deepcopy(original), torch.randn(2, 3, 64, 64)
    before = outputs(original, images)["blocks.1"]
    for mode in (False, True, False):
        twin.train(mode)(images)["blocks.1"].sum().backward()
        torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert torch.equal(outputs(original, images)["blocks.1"], before)
    assert not torch.equal(outputs(twin, images)["blocks.1"], before)


def test_a_network_of_one_size_works_up_to_its_flattening() -> None:
    assert ModuleBackbone(f"{HERE}.FixedNet", ["0"]).taps == {"0": Tap(8, 2)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "nowhere.Net"}, r"network 'nowhere.Net' cannot be imported: No module named 'nowhere'; accepted: class paths"),
        ({"network": f"{HERE}.Nothing"}, "Nothing' cannot be imported"),
        ({"network": "Net"}, "network 'Net' cannot be imported"),
        ({"network": "pathlib.Path"}, r"network 'pathlib.Path' is no torch.nn.Module class"),
        ({"network": "torch.nn.functional.relu"}, r"relu' is no torch.nn.Module class"),
        ({"network": f"{HERE}.PlainNet", "settings": {"depth": 3}}, "PlainNet cannot be built with settings {'depth': 3}: .*depth"),
        ({"network": f"{HERE}.PlainNet", "taps": ["blocks.4"]}, r"taps \['blocks.4'\] cannot be had; accepted: .*near ones are blocks\.\d"),
        ({"network": f"{HERE}.PlainNet", "taps": ["linear"]}, r"linear \(1, 7\); accepted: \(1, C, H, W\) maps of stride 2, 4"),
        ({"network": f"{HERE}.FixedNet", "taps": ["1"]}, r"1 \(1, 8, 30, 62\); accepted: \(1, C, H, W\) maps of stride"),
        ({"network": f"{HERE}.FixedNet"}, r"FixedNet does not take images of 64 x 128 pixels"),
        ({"network": f"{HERE}.DecidingNet", "taps": ["stem"]}, r"DecidingNet cannot be taken apart, because torch cannot trace"),
    ],
)
def test_errors_are_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ModuleBackbone(**arguments)
    assert "\n" not in str(error.value)
