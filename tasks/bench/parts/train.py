"""A training step against torchvision's SSDLite, transformers' Mobile DeepLabv3 and the DeepLabV3+ of segmentation-models-pytorch."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from heads import Targets
from tasks.bench import training_peers as peers
from tasks.bench.epochs import epochs
from tasks.bench.race import Race
from tasks.bench.roofline import convolutions
from tasks.detect.data.base import Batch as BoxBatch
from tasks.detect.module import DetectionModule
from tasks.memory import give_back_freed_memory, keep_freed_memory
from tasks.module import TaskModule
from tasks.optim import fused
from tasks.segment.data.base import Batch as MaskBatch
from tasks.segment.module import SegmentationModule

# Classes of PASCAL VOC without and with the background, and boxes an image, as in COCO.
CLASSES, MASK_CLASSES, BOXES = 20, 21, 7
# By how much losses and gradients in float64 may differ, as shares of the peer's (losses are computed in float32), and losses in bfloat16.
# Gradients in bfloat16 may by this many times what the peer's own differ by in it.
EXACT, HALF, SLACK = 1e-4, 1e-2, 1.5
OURS = ("mobiletap", "mobiletap, bfloat16")
# Seconds of unmeasured steps before each measured one: after other candidates' turns, freed memory is only good for use again after some.
WARM_UP = 2.0

Step = Callable[[], Tensor]


def races(
    size: int = 320,
    batch_size: int = 16,
    mask_size: int = 513,
    mask_batch_size: int = 8,
    images: str | None = None,
    annotations: str | None = None,
    epoch_images: int = 256,
) -> Iterator[Race]:
    """Yields the races: forward pass, loss, backward pass and SGD on random images.

    Ours run as the task modules train: memory in channels_last order, freed memory kept, in float32 and in bfloat16 where that helps.
    The peers run as they come: float32, and memory as the C library handles it.

    Args:
        size: height and width of the detector's input in pixels.
        batch_size: images of a step of the detector.
        mask_size: height and width of the segmenter's input in pixels.
        mask_batch_size: images of a step of the segmenter.
        images: folder of JPEG files for whole epochs of the detector; without it steps alone are timed.
        annotations: their boxes, in COCO's format.
        epoch_images: images of an epoch.

    Raises:
        ValueError: losses or gradients differ, or a file cannot be read.
    """
    yield _detection((size, size), batch_size)
    if images and annotations:
        yield epochs(images, annotations, (size, size), batch_size, epoch_images)
    yield _segmentation((mask_size, mask_size), mask_batch_size)


def _detection(size: tuple[int, int], batch_size: int) -> Race:
    torch.manual_seed(0)
    theirs = peers.torchvision_ssdlite(CLASSES, size).train()
    backbone, head = peers.ssdlite_parts()
    ours = DetectionModule(backbone, [f"class {number}" for number in range(CLASSES)], head, size)
    layers = (theirs.backbone, theirs.head.regression_head, theirs.head.classification_head)
    peers.copy_in_order(ours.model, *layers)
    images = _images(batch_size, size)
    boxes = _boxes(batch_size, size[0])
    labels = torch.randint(1, CLASSES + 1, (batch_size, BOXES))
    batch = BoxBatch(images, Targets(boxes, labels), torch.tensor([size] * batch_size), torch.arange(batch_size))
    theirs.transform.image_mean, theirs.transform.image_std = ours.model.mean.flatten().tolist(), ours.model.std.flatten().tolist()
    targets = [{"boxes": own, "labels": names} for own, names in zip(boxes, labels, strict=True)]

    def loss_of_theirs(dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.stack(list(theirs.to(dtype)(list(images.to(dtype) / 255), targets).values())).sum()

    steps = {"torchvision": _step(theirs, loss_of_theirs)} | _own_steps(ours, batch)
    equal = _compare(nn.ModuleList(layers), loss_of_theirs, ours, batch)
    name = f"a training step of SSDLite on MobileNetV2, {size[0]} x {size[1]}, {batch_size} images"
    return Race(name, "images", batch_size, "torchvision", steps, equal, _work(ours, batch_size), partial(_prepare, steps))


def _segmentation(size: tuple[int, int], batch_size: int) -> Race:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    theirs = peers.transformers_deeplab(MASK_CLASSES).train()
    backbone, head = peers.deeplab_parts()
    ours = SegmentationModule(backbone, [f"class {number}" for number in range(MASK_CLASSES)], head, size)
    layers = (theirs.mobilenet_v2.conv_stem, theirs.mobilenet_v2.layer, theirs.segmentation_head)
    peers.copy_in_order(ours.model, *layers)
    images = _images(batch_size, size)
    masks = torch.randint(0, MASK_CLASSES, (batch_size, size[0] // 20, size[1] // 20))
    masks = F.interpolate(masks[:, None].float(), size).squeeze(1).to(torch.uint8)
    batch = MaskBatch(list(images), list(masks), torch.arange(batch_size))
    wanted = masks.long()
    inputs = {dtype: ours.to(dtype).model.normalise(images.to(dtype) / 255) for dtype in (torch.float64, torch.float32)}
    plus = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=MASK_CLASSES)

    def loss_of_theirs(dtype: torch.dtype = torch.float32) -> Tensor:
        loss: Tensor = theirs.to(dtype)(inputs[dtype], labels=wanted).loss
        return loss

    steps = {"transformers": _step(theirs, loss_of_theirs)}
    # It takes multiples of 16 only.
    less = inputs[torch.float32][..., : size[0] // 16 * 16, : size[1] // 16 * 16].contiguous()
    shown = wanted[:, : less.shape[2], : less.shape[3]]
    steps["segmentation-models-pytorch DeepLabV3+"] = _step(plus, lambda: F.cross_entropy(plus(less), shown, ignore_index=255))
    steps |= _own_steps(ours, batch)
    equal = _compare(nn.ModuleList(layers), loss_of_theirs, ours, batch)
    name = f"a training step of Mobile DeepLabv3, {size[0]} x {size[1]}, {batch_size} images"
    return Race(name, "images", batch_size, "transformers", steps, equal, _work(ours, batch_size), partial(_prepare, steps))


def _boxes(batch_size: int, size: int) -> Tensor:
    """Boxes near squares of the finest anchors (a fifth of the image every 16 pixels), each in its own ninth of the image.

    Where several anchors overlap a box as much, or two boxes want the same anchor, rounding decides, and torchvision otherwise than we.
    """
    cells = torch.stack([torch.randperm(9)[:BOXES] for _ in range(batch_size)])
    centres = (torch.stack([cells % 3, cells // 3], dim=2) + 0.5) * size / 3 // 16 * 16 + 8 + 4 * torch.rand(batch_size, BOXES, 2) - 2
    half = size / 10 * (1 + 0.2 * torch.rand(batch_size, BOXES, 2) - 0.1)
    return torch.cat([centres - half, centres + half], dim=2)


def _images(batch_size: int, size: tuple[int, int]) -> Tensor:
    """Colours that flow into each other, as in photos: of noise nothing is left after some layers but rounding."""
    coarse = torch.rand(batch_size, 3, size[0] // 16, size[1] // 16)
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def _step(network: nn.Module, loss: Callable[[], Tensor], adapt: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer) -> Step:
    optimizer = adapt(SGD(network.parameters(), lr=1e-5, momentum=0.9, weight_decay=4e-5))

    def step() -> Tensor:
        found = loss()
        optimizer.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return found

    return step


def _loss_of(module: TaskModule, batch: Any, is_half: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
        return torch.stack(list(module.losses(batch).values())).sum()


def _own_steps(module: TaskModule, batch: Any) -> dict[str, Step]:
    module.to(memory_format=torch.channels_last).train()
    return {name: _step(module, partial(_loss_of, module, batch, half), fused) for name, half in zip(OURS, (False, True), strict=True)}


def _compare(theirs: nn.Module, loss_of_theirs: Callable[[torch.dtype], Tensor], ours: TaskModule, batch: Any) -> str:
    """Says by how much losses and gradients differ from the peer's in float64, and by how much both do in bfloat16.

    Through fifty untrained layers with batch norms rounding grows until little is left of gradients in bfloat16, the peer's own too.

    Raises:
        ValueError: ours differ in float64 by more than rounding, or in bfloat16 by much more than the peer's own.
    """
    expected = _gradients(loss_of_theirs(torch.float64), theirs)
    shares = [image.double() / 255 for image in batch.images]
    images = torch.stack(shares) if isinstance(batch.images, Tensor) else shares
    exact = _gradients(_loss_of(ours.double(), batch._replace(images=images), False), ours.model)
    ours.float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _gradients(loss_of_theirs(torch.float32), theirs)
    half = _gradients(_loss_of(ours, batch, True), ours.model)
    apart = {
        name: _apart(found, expected) for name, found in (("ours", exact), ("ours in bfloat16", half), ("its own in bfloat16", rounded))
    }
    if (
        max(apart["ours"]) > EXACT
        or apart["ours in bfloat16"][0] > HALF
        or apart["ours in bfloat16"][1] > SLACK * apart["its own in bfloat16"][1]
    ):
        raise ValueError(f"losses and gradients are apart from the peer's in float64 by shares of {apart}")
    said = ", ".join(f"{name} {loss:.0e} and {gradients:.0e}" for name, (loss, gradients) in apart.items())
    return f"loss {expected[0]:.4f}; losses and gradients from the peer's in float64, as shares of these: {said}"


def _apart(found: tuple[float, Tensor], expected: tuple[float, Tensor]) -> tuple[float, float]:
    """Differences of loss and gradients, as shares of what is expected."""
    return abs(found[0] / expected[0] - 1), float((found[1] - expected[1]).norm() / expected[1].norm())


def _gradients(loss: Tensor, network: nn.Module) -> tuple[float, Tensor]:
    found = torch.autograd.grad(loss, list(network.parameters()))
    return loss.item(), torch.cat([part.flatten() for part in found])


def _work(ours: TaskModule, batch_size: int) -> Mapping[str, Any]:
    kinds = zip(OURS, ("float32", "bfloat16"), strict=True)
    return {name: convolutions(ours.model, ours.model.size, batch_size, dtype, passes=3) for name, dtype in kinds}


def _prepare(steps: Mapping[str, Step], name: str) -> None:
    """Hands memory over as the candidate's own program would have it after its first steps."""
    if name in OURS:
        keep_freed_memory()
    else:
        give_back_freed_memory()
    begin = time.perf_counter()
    while time.perf_counter() < begin + WARM_UP:
        steps[name]()
