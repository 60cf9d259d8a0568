"""The training module of classification: losses, steps and checkpoints."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from backbones import MobileNetV2
from heads import ClassifierHead
from tasks.classify.data import Batch
from tasks.classify.module import ClassificationModule

NAMES = ("cat", "dog", "owl")


def make(names: tuple[str, ...] = NAMES, width_mult: float = 0.35, **options: Any) -> ClassificationModule:
    backbone = MobileNetV2(["layer4"], width_mult=width_mult)
    return ClassificationModule(backbone, names, lambda taps, k: ClassifierHead(taps, k, dropout=0.0), (24, 32), **options)


def batch_of(*labels: int) -> Batch:
    images = torch.randint(256, (len(labels), 3, 24, 32), dtype=torch.uint8)
    return Batch(images, torch.tensor(labels), torch.arange(len(labels)))


def test_loss_is_cross_entropy() -> None:
    module, batch = make().eval(), batch_of(0, 2, 1)
    expected = F.cross_entropy(module.model(batch.images), batch.labels)
    torch.testing.assert_close(module.losses(batch), {"class": expected})


def test_labels_are_smoothed() -> None:
    module, batch = make(label_smoothing=0.3).eval(), batch_of(0, 2, 1)
    wanted = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    expected = -(module.model(batch.images).log_softmax(dim=1) * wanted).sum(dim=1).mean()
    torch.testing.assert_close(module.losses(batch), {"class": expected})


def test_mixed_batches_have_the_loss_of_mixed_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make(mixup=1.0).eval(), batch_of(0, 2, 1)
    monkeypatch.setattr(module.mix.kinds[0]._dist, "sample", lambda shape: torch.tensor([0.75]))
    images = 0.75 * batch.images / 255 + 0.25 * batch.images.roll(1, 0) / 255
    shares = torch.tensor([[0.75, 0.25, 0], [0.25, 0, 0.75], [0, 0.75, 0.25]])
    expected = -(module.model(images).log_softmax(dim=1) * shares).sum(dim=1).mean()
    torch.testing.assert_close(module.losses(batch), {"class": expected}, rtol=1e-4, atol=1e-5)


def test_loss_is_in_single_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        (loss,) = make().losses(batch_of(0, 1)).values()
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0}], ids=["plain", "modern"])
def test_steps_lower_the_loss_and_reach_every_parameter(options: dict[str, float]) -> None:
    module, batch = make(**options).train(), batch_of(0, 1, 2, 0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    before = make().eval().losses(batch)["class"].item()
    for _ in range(12):
        (loss,) = module.losses(batch).values()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        optimizer.step()
    with torch.no_grad():
        assert F.cross_entropy(module.model(batch.images), batch.labels) < before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing 1\.0 is not possible; accepted: 0 to under 1"),
        ({"label_smoothing": -0.1}, r"label_smoothing -0\.1 is not possible"),
        ({"mixup": -1.0}, r"mixup -1\.0 and cutmix 0\.0 are not possible; accepted: 0 or more"),
        ({"crop": 0.0}, r"crop 0\.0 is not possible; accepted: over 0 to 1"),
        ({"names": ("cat",)}, r"num_classes 1 is not possible; accepted: 2 or more classes"),
    ],
)
def test_arguments_that_are_not_possible_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def checkpoint_of(module: ClassificationModule) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_own_checkpoint_is_taken_back() -> None:
    checkpoint = checkpoint_of(make())
    make(mixup=0.2, crop=0.5).on_load_checkpoint(checkpoint)
    assert checkpoint["classifier"]["class_names"] == list(NAMES)
    assert checkpoint["classifier"]["crop"] == 0.875


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("cat", "dog", "cow")}, r"classes are \['cat', 'dog', 'owl'\], those of this run are .*'cow'"),
        ({"mean": (0.5, 0.5, 0.5)}, "the checkpoint's mean are"),
        ({"width_mult": 0.5}, r"another architecture: \d+ tensors do not fit, the first is model\.backbone\.features"),
    ],
)
def test_checkpoint_of_another_model_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options).on_load_checkpoint(checkpoint_of(make()))


def test_starts_from_a_checkpoint_of_other_classes(tmp_path: Any) -> None:
    source = make()
    source.model.save(tmp_path / "start.pt")
    with pytest.raises(ValueError, match=r"start\.pt: 2 of \d+ tensors do not fit"):
        make(names=NAMES[:2], weights=str(tmp_path / "start.pt"))
    partly = make(names=NAMES[:2], weights=str(tmp_path / "start.pt"), strict_weights=False)
    for ours, theirs in zip(partly.model.backbone.parameters(), source.model.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
