"""The training module of segmentation: losses, steps and checkpoints."""

from typing import Any

import pytest
import torch
from segmentation_models_pytorch import losses as smp
from torch import Tensor, nn

from backbones import MobileNetV2
from heads import CrossEntropyLoss, DeepLabV3, OHEMLoss
from tasks.segment.data import Batch
from tasks.segment.module import SegmentationModule

NAMES = ("background", "cat", "dog")
LOSSES: list[nn.Module] = [
    CrossEntropyLoss(),
    CrossEntropyLoss(class_weights=(0.5, 1.0, 2.0)),
    OHEMLoss(),
    smp.FocalLoss("multiclass", ignore_index=255),
    smp.LovaszLoss("multiclass", ignore_index=255),
    smp.DiceLoss("multiclass", ignore_index=255),
    smp.JaccardLoss("multiclass", ignore_index=255),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def make(names: tuple[str, ...] = NAMES, width_mult: float = 0.35, **options: Any) -> SegmentationModule:
    backbone = MobileNetV2(["layer18"], width_mult=width_mult, output_stride=16)
    return SegmentationModule(backbone, names, lambda taps, k: DeepLabV3(taps, k, channels=16, dropout=0.0), (33, 49), **options)


def batch_of(*masks: Tensor) -> Batch:
    images = [torch.randint(256, (3, 33, 49), dtype=torch.uint8) for _ in masks]
    return Batch(images, [mask.byte() for mask in masks], torch.arange(len(masks)))


def halves() -> Tensor:
    mask = torch.zeros(33, 49)
    mask[:, 20:], mask[:4] = 2, 255
    return mask


def void() -> Tensor:
    return torch.full((33, 49), 255)


@every_loss
def test_void_batch_has_a_loss_of_zero_that_trains_nothing(loss: nn.Module) -> None:
    module = make(loss=loss)
    (value,) = module.losses(batch_of(void(), void())).values()
    value.backward()
    assert value == 0
    assert all((p.grad == 0).all() for p in module.parameters())


@every_loss
def test_batch_with_a_void_image_trains(loss: nn.Module) -> None:
    module = make(loss=loss)
    (value,) = module.losses(batch_of(void(), halves())).values()
    value.backward()
    assert value > 0
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert module.model.head.logits.weight.grad.any()


@every_loss
def test_void_pixels_do_not_train(loss: nn.Module) -> None:
    masks = torch.stack([halves(), halves().flip(1)]).long()
    logits = torch.randn(2, 3, 33, 49, requires_grad=True)
    loss(logits, masks).backward()
    assert (logits.grad.movedim(1, -1)[masks == 255] == 0).all()
    assert (logits.grad.movedim(1, -1)[masks != 255] != 0).any()


@every_loss
def test_steps_lower_the_loss(loss: nn.Module) -> None:
    module, batch = make(loss=loss).train(), batch_of(halves(), halves())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    values = []
    for _ in range(4):
        (value,) = module.losses(batch).values()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_loss_is_that_of_logits_at_the_size_of_the_crop() -> None:
    module, batch = make().eval(), batch_of(halves(), torch.ones(33, 49))
    logits, masks = module.model(torch.stack(batch.images)), torch.stack(batch.masks).long()
    expected = nn.functional.cross_entropy(logits, masks, ignore_index=255)
    torch.testing.assert_close(module.losses(batch), {"pixel": expected})


def test_loss_is_in_single_precision_under_autocast() -> None:
    module, batch = make(), batch_of(halves(), halves())
    seen = []
    module.loss.register_forward_pre_hook(lambda _, args: seen.append((args[0].dtype, torch.is_autocast_enabled("cpu"))))
    with torch.autocast("cpu", torch.bfloat16):
        assert module.losses(batch)["pixel"].dtype == torch.float32
    assert seen == [(torch.float32, False)]


def test_wrong_number_of_class_weights_is_named() -> None:
    with pytest.raises(ValueError, match=r"class_weights has 2 values; accepted: 3"):
        make(loss=CrossEntropyLoss(class_weights=(1.0, 2.0))).losses(batch_of(halves()))


def checkpoint_of(module: SegmentationModule) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_own_checkpoint_is_taken_back() -> None:
    checkpoint = checkpoint_of(make())
    make().on_load_checkpoint(checkpoint)
    make(scales=(0.5, 1.0), flip=True, sliding=True).on_load_checkpoint(checkpoint)
    assert checkpoint["segmenter"]["class_names"] == list(NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("background", "cat", "owl")}, r"classes are \['background', 'cat', 'dog'\], those of this run are .*'owl'"),
        ({"names": NAMES[:2]}, "the checkpoint's classes are"),
        ({"mean": (0.5, 0.5, 0.5)}, "the checkpoint's mean are"),
        ({"std": (0.5, 0.5, 0.5)}, "the checkpoint's std are"),
        ({"width_mult": 0.5}, r"another architecture: \d+ tensors do not fit, the first is model\.backbone\.features"),
    ],
)
def test_checkpoint_of_another_model_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options).on_load_checkpoint(checkpoint_of(make()))


def test_checkpoint_of_a_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="the checkpoint: holds no segmenter"):
        make().on_load_checkpoint({"detector": {}, "state_dict": {}})


def test_scales_that_are_not_possible_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scales \[0\.0\] are not possible"):
        make(scales=(0.0,))


def test_starts_from_a_checkpoint(tmp_path: Any) -> None:
    source = make()
    source.model.save(tmp_path / "start.pt")
    started = make(weights=str(tmp_path / "start.pt"))
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), started.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match=r"start\.pt: 2 of \d+ tensors do not fit"):
        make(names=NAMES[:2], weights=str(tmp_path / "start.pt"))
    partly = make(names=NAMES[:2], weights=str(tmp_path / "start.pt"), strict_weights=False)
    assert torch.equal(partly.model.head.projection[0].weight, source.model.head.projection[0].weight)
