"""Losses on pixels: ours against torch's and by hand, and smp's where masks are void."""

import math
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from backbones import Tap, loops
from heads import IGNORE_INDEX, CrossEntropyLoss, DeepLabV3, OHEMLoss

WEIGHTS = [0.5, 2.0, 1.0]
OURS = [CrossEntropyLoss(), CrossEntropyLoss(WEIGHTS), OHEMLoss(), OHEMLoss(min_kept=0.0), OHEMLoss(1.0, 1.0)]
THEIRS = [
    loss(mode="multiclass", ignore_index=IGNORE_INDEX) for loss in (smp.losses.DiceLoss, smp.losses.LovaszLoss, smp.losses.JaccardLoss)
]
FOCAL = smp.losses.FocalLoss(mode="multiclass", ignore_index=IGNORE_INDEX)


def batch() -> tuple[Tensor, Tensor]:
    """Logits of three classes and masks with void pixels."""
    masks = torch.randint(0, 3, (2, 7, 5))
    masks[:, :2] = IGNORE_INDEX
    return torch.randn(2, 3, 7, 5, requires_grad=True), masks


def pixels(probabilities: list[float], classes: list[int]) -> tuple[Tensor, Tensor]:
    """Logits of two classes in one row, from the probability of class 1, and the row's mask."""
    share = torch.tensor(probabilities)
    return torch.stack([1 - share, share]).log()[None, :, None], torch.tensor(classes)[None, None]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equals_torch(weights: list[float] | None) -> None:
    logits, masks = batch()
    expected = F.cross_entropy(logits, masks, None if weights is None else torch.tensor(weights), ignore_index=IGNORE_INDEX)
    found = CrossEntropyLoss(weights)(logits, masks)
    assert found.shape == ()
    assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    assert_close(*gradients)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 0.0, 3.0]])
@pytest.mark.parametrize("sizes", [((5, 7), (33, 50)), ((2, 2), (9, 9)), ((9, 9), (9, 5)), ((4, 3), (1, 1)), ((5, 7), (33, 129))], ids=str)
def test_of_cells_equals_torch(
    sizes: tuple[tuple[int, int], tuple[int, int]],
    weights: list[float] | None,
    align_corners: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = used(monkeypatch)
    head = DeepLabV3({"layer18": Tap(8, 16)}, 5, align_corners=align_corners)
    masks = torch.randint(0, 5, (3, *sizes[1]))
    masks[1:, ::3] = IGNORE_INDEX
    cells = (5 * torch.randn(3, 5, *sizes[0])).requires_grad_()
    upsampled = F.interpolate(cells.double(), sizes[1], mode="bilinear", align_corners=align_corners)
    expected = CrossEntropyLoss(weights).double()(upsampled, masks)
    found = CrossEntropyLoss(weights).of_cells(cells, masks, head)
    assert len(calls) == 1
    assert found.dtype == torch.float32
    assert_close(found, expected, check_dtype=False, rtol=1e-6, atol=0)
    ours, theirs = (torch.autograd.grad(3 * loss, cells)[0] for loss in (found, expected))
    assert float((ours - theirs).norm()) <= 1e-6 * float(theirs.norm())


def used(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the calls of loops, which take small masks too."""
    if loops._parallel() is None:
        pytest.skip("torch was built without OpenMP")
    calls: list[Any] = []
    monkeypatch.setattr(loops, "LEAST_SIZE", 0)
    monkeypatch.setattr("heads.pixel_loops.on_all_threads", lambda *args: calls.append(args) or loops.on_all_threads(*args))
    return calls


def test_extreme_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    used(monkeypatch)
    head, loss = DeepLabV3({"layer18": Tap(8, 16)}, 2), CrossEntropyLoss()
    cells, masks = torch.tensor([-1e4, 1e4]).repeat(1, 3, 3, 1).permute(0, 3, 1, 2), torch.ones(1, 9, 9, dtype=torch.int64)
    assert float(loss.of_cells(cells, masks, head)) == 0
    assert float(loss.of_cells(cells, masks * 0, head)) == 2e4
    assert float(loss.of_cells(cells, masks * IGNORE_INDEX, head)) == 0
    cells[0, 1, 1, 1] = torch.nan
    assert loss.of_cells(cells, masks, head).isnan()
    with pytest.raises(IndexError, match=r"^masks hold unknown classes in 9 lines; accepted: 0 to 1, and 255 for void$"):
        loss.of_cells(cells, masks * 7, head)


def test_other_losses_and_heads_compute_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(CrossEntropyLoss):
        def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
            return super().forward(logits, masks) / 2

    class Nearest(DeepLabV3):
        def upsample(self, logits: Tensor, size: Any) -> Tensor:
            return F.interpolate(logits, size)

    calls, taps = used(monkeypatch), {"layer18": Tap(8, 16)}
    cells, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 8, 8))
    head = DeepLabV3(taps, 3)
    expected = CrossEntropyLoss()(head.upsample(cells, (8, 8)), masks)
    assert_close(Halved().of_cells(cells, masks, head), expected / 2)
    assert_close(CrossEntropyLoss().of_cells(cells, masks, Nearest(taps, 3)), F.cross_entropy(F.interpolate(cells, (8, 8)), masks))
    assert_close(CrossEntropyLoss().of_cells(cells.double(), masks, head), expected, check_dtype=False)
    assert calls == []


def test_other_void_values() -> None:
    logits, masks = batch()
    expected = CrossEntropyLoss()(logits, masks)
    masks = masks.where(masks != IGNORE_INDEX, -1)
    assert_close(CrossEntropyLoss(ignore_index=-1)(logits, masks), expected)
    assert_close(OHEMLoss(1.0, 1.0, ignore_index=-1)(logits, masks), expected)


@pytest.mark.parametrize("loss", [*OURS, *THEIRS], ids=lambda loss: type(loss).__name__)
def test_void_masks_give_nothing_to_learn(loss: nn.Module) -> None:
    logits, _ = batch()
    found = loss(logits, torch.full((2, 7, 5), IGNORE_INDEX))
    found.sum().backward()
    assert (found == 0).all()
    assert (logits.grad == 0).all()


def test_lovasz_of_void_masks_is_no_scalar() -> None:
    # Whoever trains with it has to take the mean.
    assert smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)(batch()[0], torch.full((2, 7, 5), IGNORE_INDEX)).shape == (0, 3)


def test_focal_loss_of_void_masks_is_nan() -> None:
    # It takes the mean over no pixel; whoever trains with it needs one pixel that is not void.
    assert FOCAL(batch()[0], torch.full((2, 7, 5), IGNORE_INDEX)).isnan()


@pytest.mark.parametrize("loss", [*OURS, *THEIRS, FOCAL], ids=lambda loss: type(loss).__name__)
def test_void_pixels_do_not_count(loss: nn.Module) -> None:
    logits, masks = batch()
    found = loss(logits, masks)
    assert found.shape == ()
    assert found > 0
    found.backward()
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).any()
    changed = logits.detach().clone()
    changed[:, :, :2] += 10 * torch.randn(2, 3, 2, 5)
    assert_close(loss(changed, masks), found.detach())


def test_classes_of_weight_zero_alone_give_nothing() -> None:
    logits, _ = batch()
    found = CrossEntropyLoss([0.0, 1.0, 1.0])(logits, torch.zeros(2, 7, 5, dtype=torch.int64))
    found.backward()
    assert found == 0
    assert (logits.grad == 0).all()


def test_hard_pixels_by_hand() -> None:
    # True classes have probabilities .9, .6, .2, .8; the second and the third are under .7.
    logits, masks = pixels([0.9, 0.6, 0.2, 0.2], [1, 1, 1, 0])
    assert OHEMLoss(0.7, 0.0)(logits, masks).item() == pytest.approx(-(math.log(0.6) + math.log(0.2)) / 2)
    assert OHEMLoss(0.5, 0.0)(logits, masks).item() == pytest.approx(-math.log(0.2))
    assert OHEMLoss(0.1, 0.0)(logits, masks).item() == 0


@pytest.mark.parametrize(("min_kept", "kept"), [(0.25, [0.2]), (0.5, [0.2, 0.6]), (0.75, [0.2, 0.6, 0.8]), (1.0, [0.2, 0.6, 0.8, 0.9])])
def test_a_share_of_the_pixels_is_always_kept(min_kept: float, kept: list[float]) -> None:
    logits, masks = pixels([0.9, 0.6, 0.2, 0.2], [1, 1, 1, 0])
    assert OHEMLoss(0.1, min_kept)(logits, masks).item() == pytest.approx(-sum(map(math.log, kept)) / len(kept))


def test_void_pixels_are_never_kept() -> None:
    logits, masks = pixels([0.9, 0.6, 0.2, 0.2], [1, IGNORE_INDEX, IGNORE_INDEX, 0])
    assert OHEMLoss(0.1, 1.0)(logits, masks).item() == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)


def test_all_pixels_kept_is_cross_entropy() -> None:
    logits, masks = batch()
    assert_close(OHEMLoss(1.0, 0.0)(logits, masks), CrossEntropyLoss()(logits, masks))
    assert_close(OHEMLoss(0.5, 1.0)(logits, masks), CrossEntropyLoss()(logits, masks))


@pytest.mark.parametrize("loss", OURS)
def test_losses_under_bfloat16_are_float32(loss: nn.Module) -> None:
    logits, masks = batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits.bfloat16(), masks)
    assert found.dtype == torch.float32
    assert_close(found, loss(logits.bfloat16().float(), masks))


def test_weights_stay_out_of_checkpoints() -> None:
    assert CrossEntropyLoss(WEIGHTS).state_dict() == {}


def test_another_number_of_weights_than_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="class_weights has 2 values; accepted: 3, one a class, background included"):
        CrossEntropyLoss([1.0, 2.0])(*batch())


@pytest.mark.parametrize("arguments", [{"threshold": 0.0}, {"threshold": 1.1}, {"min_kept": -0.1}, {"min_kept": 1.5}])
def test_shares_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    (value,) = arguments.values()
    with pytest.raises(ValueError, match=f"{value}.*accepted: a threshold over 0 to 1, a share of 0 to 1"):
        OHEMLoss(**arguments)
