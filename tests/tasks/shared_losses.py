"""Losses and gradients of six images, by one process or dealt out to several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from backbones import MobileNetV2
from heads import CrossEntropyLoss, FocalLoss, OHEMLoss, SoftmaxLoss, SSDLite, Targets
from tasks.classify.data import Batch as LabelBatch
from tasks.classify.module import ClassificationModule
from tasks.detect.data import Batch as BoxBatch
from tasks.detect.module import DetectionModule
from tasks.segment.data import Batch as MaskBatch
from tasks.segment.module import SegmentationModule

SIDE = 48
BOXES = {"different numbers of boxes": (3, 0, 1, 1, 5, 0), "a process without boxes": (3, 2, 4, 0, 0, 0), "no boxes": (0, 0, 0, 0, 0, 0)}
VALID = {"different numbers of pixels": (9, 60, 64, 1, 0, 30), "a void process": (9, 60, 64, 0, 0, 0), "void": (0, 0, 0, 0, 0, 0)}
PIXEL_LOSSES: dict[str, Callable[[], nn.Module]] = {
    "cross-entropy": CrossEntropyLoss,
    "weighted": lambda: CrossEntropyLoss([0.2, 1.0, 3.0]),
    "hard pixels": lambda: OHEMLoss(0.7, min_kept=0.0),
}
# Means over each process's own pixels: they do not equal those of one process, but nothing waits or breaks.
FOREIGN = {"focal of smp": lambda: smp.losses.FocalLoss("multiclass", ignore_index=255)}


class Step(nn.Module):
    """The sum of a module's losses as its output, for DistributedDataParallel."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        # Batch norms use their statistics, for those of a batch depend on the number of processes.
        self.module = module.eval()
        self.module.model.double()  # losses are in single precision all the same

    def forward(self, batch: Any) -> Tensor:
        losses = self.module.losses(batch)
        return torch.stack(list(losses.values())).sum()


def _backbone() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2(width_mult=0.1)


def _images() -> Tensor:
    return torch.rand(6, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _boxes(counts: tuple[int, ...], own: slice) -> BoxBatch:
    draw = torch.Generator().manual_seed(2)
    corners = [torch.rand(count, 2, generator=draw) * SIDE / 2 for count in counts]
    boxes = [torch.cat([low, low + SIDE / 3], dim=1) for low in corners]
    labels = [torch.arange(count) % 2 + 1 for count in counts]
    sizes = torch.full((6, 2), SIDE)
    return BoxBatch(_images()[own], Targets.collate(boxes[own], labels[own]), sizes[own], torch.arange(6)[own])


def _masks(counts: tuple[int, ...], own: slice) -> MaskBatch:
    masks = torch.full((6, 64), 255)
    for mask, count in zip(masks, counts, strict=True):
        mask[:count] = torch.arange(count) % 3
    large = F.interpolate(masks.view(6, 1, 8, 8).float(), (SIDE, SIDE)).long()[:, 0]
    return MaskBatch(list(_images()[own]), list(large[own]), torch.arange(6)[own])


def _labels(own: slice) -> LabelBatch:
    return LabelBatch(_images()[own], (torch.arange(6) % 3)[own], torch.arange(6)[own])


def _detector(loss: Any) -> DetectionModule:
    head = lambda taps, classes: SSDLite(taps, classes, extra_channels=[32], class_loss=loss)  # noqa: E731
    return DetectionModule(_backbone(), ["a", "b"], head, size=(SIDE, SIDE))


def cases() -> dict[str, tuple[Callable[[], Any], Callable[[slice], Any]]]:
    """For each case what builds the module, and the batch of some of the images."""
    found: dict[str, tuple[Callable[[], Any], Callable[[slice], Any]]] = {}
    mixed = "a process without boxes"
    for loss, name in [*((SoftmaxLoss(), name) for name in BOXES), (FocalLoss(), mixed)]:
        found[f"{type(loss).__name__}, {name}"] = (lambda loss=loss: _detector(loss), lambda own, name=name: _boxes(BOXES[name], own))
    for kind, name in [*(("cross-entropy", name) for name in VALID), *((kind, "a void process") for kind in PIXEL_LOSSES | FOREIGN)]:
        make = (PIXEL_LOSSES | FOREIGN)[kind]
        found[f"{kind}, {name}"] = (
            lambda make=make: SegmentationModule(_backbone(), ["background", "a", "b"], loss=make(), size=(SIDE, SIDE)),
            lambda own, name=name: _masks(VALID[name], own),
        )
    found["classes"] = (lambda: ClassificationModule(_backbone(), ["a", "b", "c"], size=(SIDE, SIDE)), _labels)
    return found


def measure(ranks: int = 1, rank: int = 0) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """The mean loss over the processes and all gradients, case by case; every parameter must have one."""
    own, found = slice(rank * 6 // ranks, (rank + 1) * 6 // ranks), {}
    for name, (make, batch) in cases().items():
        torch.manual_seed(0)
        step = Step(make())
        network = DistributedDataParallel(step) if ranks > 1 else step
        loss = network(batch(own))
        loss.backward()
        value = loss.detach().clone()
        if ranks > 1:
            torch.distributed.all_reduce(value)
        gradients = {key: parameter.grad for key, parameter in step.named_parameters() if parameter.requires_grad}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values()), name
        found[name] = (value / ranks, gradients)
    return found


def write(folder: str) -> None:
    """What each process of a group measures."""
    rank = torch.distributed.get_rank()
    torch.save(measure(torch.distributed.get_world_size(), rank), Path(folder) / f"{rank}.pt")
