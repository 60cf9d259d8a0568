"""What is frozen stays as it was, and all else trains."""

import copy

import pytest
import torch
from torch import Tensor, nn

from backbones import MobileNetV2


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def train_step(backbone: MobileNetV2) -> None:
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, weight_decay=0.1)
    sum(f.square().mean() for f in backbone(torch.randn(2, 3, 32, 32)).values()).backward()
    optimizer.step()


def changed(backbone: MobileNetV2, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_training_step_changes_everything_unless_frozen() -> None:
    backbone = MobileNetV2(["layer4"])
    before = copy.deepcopy(backbone.state_dict())
    train_step(backbone)
    assert changed(backbone, before) == set(before)


@pytest.mark.parametrize("calls_train", [False, True])
def test_frozen_layers_do_not_change(calls_train: bool) -> None:
    backbone = MobileNetV2(["layer5"], frozen_layers=3)
    if calls_train:
        assert backbone.eval().train() is backbone
    before = copy.deepcopy(backbone.state_dict())
    train_step(backbone)
    assert changed(backbone, before) == {name for name in before if int(name.split(".")[1]) >= 3}
    assert [p.requires_grad for p in backbone.features[:3].parameters()] == [False] * len(list(backbone.features[:3].parameters()))


@pytest.mark.parametrize("calls_train", [False, True])
def test_frozen_batch_norms_do_not_change(calls_train: bool) -> None:
    backbone = MobileNetV2(["layer5"], freeze_bn=True)
    if calls_train:
        backbone.train()
    before = copy.deepcopy(backbone.state_dict())
    train_step(backbone)
    convolutions = {f"{name}.weight" for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)}
    assert changed(backbone, before) == convolutions


def test_training_mode_reaches_what_is_not_frozen() -> None:
    backbone = MobileNetV2(["layer5"], frozen_layers=2).train()
    assert [layer.training for layer in backbone.features] == [False, False, True, True, True]
    assert not any(module.training for module in backbone.eval().modules())


def test_copies_freeze_their_own_layers() -> None:
    original = MobileNetV2(["layer4"], frozen_layers=2, freeze_bn=True)
    twin = copy.deepcopy(original).train()
    assert not any(norm.training for norm in norms(twin))
    before = copy.deepcopy(original.state_dict())
    train_step(twin)
    assert changed(original, before) == set()


def test_frozen_batch_norms_stay_frozen_when_synchronised_over_processes() -> None:
    backbone = nn.SyncBatchNorm.convert_sync_batchnorm(MobileNetV2(["layer4"], freeze_bn=True)).train()
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.SyncBatchNorm))
