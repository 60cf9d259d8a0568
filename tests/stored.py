"""Numbers that do not move: outputs of every own backbone and head, and losses of five steps of each task, on fixed weights and inputs.

`python -m tests.stored` renews `stored.json` after a change that is meant to move them; the commit then says which and why. Weights and
inputs follow from a formula instead of torch's random numbers and initialisers, so that other releases of torch have the same.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import MobileNetV1, MobileNetV2, NASNetA, ShuffleNetV1, Tap
from heads import LRASPP, SSD, ClassifierHead, DeepLabV3, FocalLoss, SigmoidLoss, SmpDecoder, SSDLite, Targets
from tasks.classify.data import Batch as ImageBatch
from tasks.classify.module import ClassificationModule
from tasks.detect.data import Batch as BoxBatch
from tasks.detect.module import DetectionModule
from tasks.module import TaskModule
from tasks.optim import parameter_groups
from tasks.segment.data import Batch as MaskBatch
from tasks.segment.module import SegmentationModule

FILE = Path(__file__).with_name("stored.json")
# Values kept of each tensor, evenly spread.
KEPT = 6
STEPS, RATE, LARGEST_GRADIENT = 5, 5e-5, 1.0

Numbers = dict[str, list[float]]


def spread(*shape: int, number: int = 0) -> Tensor:
    """Numbers in -1..1 that look random: the far digits of a sine, of another part of it for each number."""
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    return ((torch.sin(count * 12.9898 + number * 78.233 + 1) * 43758.5453) % 1 * 2 - 1).float().reshape(shape)


@torch.no_grad()
def filled(module: nn.Module) -> Any:
    """Gives a module weights of the usual variance, and batch norms scales, shifts and statistics, in evaluation mode."""
    number = 0
    for layer in module.modules():
        for name, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            number += 1
            values = spread(*value.shape, number=number)
            if name == "running_var" or (name == "weight" and value.dim() == 1):
                value.copy_(1 + values / 2)
            elif name == "running_mean" or name == "bias":
                value.copy_(values / 4)
            elif value.dim() > 1 and name == "weight":
                value.copy_(values * math.sqrt(6 / value[0].numel()))
    return module.eval()


def summary(value: Tensor) -> list[float]:
    """Mean, mean size, and some values."""
    flat = value.detach().double().flatten()
    places = torch.linspace(0, len(flat) - 1, KEPT).long()
    return [flat.mean().item(), flat.abs().mean().item(), *flat[places].tolist()]


def features(taps: Mapping[str, Tap], size: tuple[int, int]) -> dict[str, Tensor]:
    """Inputs of a head, two images."""
    return {
        name: spread(2, tap.channels, -(-size[0] // tap.stride), -(-size[1] // tap.stride), number=number).relu()
        for number, (name, tap) in enumerate(taps.items(), start=50)
    }


def of_backbone(build: Callable[[], Any]) -> Numbers:
    """Its features of two images of an even and an odd side, which `same` pads otherwise."""
    with torch.no_grad():
        return {name: summary(value) for name, value in filled(build())(spread(2, 3, 96, 65)).items()}


def of_detection_head(build: Callable[..., SSDLite]) -> Numbers:
    """Predictions, losses and detections."""
    taps, size = {"fine": Tap(32, 16), "coarse": Tap(48, 32)}, (96, 128)
    head = filled(build(taps, 3, extra_channels=(32, 32)))
    predictions = head(features(taps, size), size)
    boxes = [torch.tensor([[3.0, 5.0, 40.0, 60.0], [50.0, 20.0, 125.0, 95.0]]), torch.tensor([[10.0, 10.0, 30.0, 30.0]])]
    losses = head.loss(predictions, Targets.collate(boxes, [torch.tensor([1, 3]), torch.tensor([2])]))
    found = head.postprocess(predictions, torch.tensor([[48, 64], [200, 300]]))
    numbers = {name: summary(getattr(predictions, name)) for name in ("class_logits", "box_deltas", "anchors")}
    numbers |= {name: [value.item()] for name, value in losses.items()}
    return numbers | {
        "scores": summary(torch.cat([one.scores for one in found])),
        "boxes": summary(torch.cat([one.boxes for one in found])),
    }


SEGMENTATION_TAPS = {"layer2": Tap(8, 2), "layer4": Tap(12, 4), "layer7": Tap(16, 8), "layer14": Tap(24, 16), "layer18": Tap(32, 32)}


def of_segmentation_head(build: Callable[..., Any], *names: str) -> Numbers:
    """Its logits at the size of the image."""
    taps = {name: SEGMENTATION_TAPS[name] for name in names or SEGMENTATION_TAPS}
    with torch.no_grad():
        return {"logits": summary(filled(build(taps, 4))(features(taps, (64, 96)), (64, 96)))}


def of_classifier() -> Numbers:
    """Its logits."""
    taps = {"layer19": Tap(64, 32)}
    with torch.no_grad():
        return {"logits": summary(filled(ClassifierHead(taps, 5))(features(taps, (64, 96))))}


def steps(module: TaskModule, batch: Any) -> Numbers:
    """The losses of some steps with the task's own optimizer; in larger ones, what differs in the last digit comes to the first."""
    filled(module).train()
    optimizer, found = module.optimizer(parameter_groups(module.model)), []
    for group in optimizer.param_groups:
        group["lr"] = RATE
    module.log = module.log_dict = lambda *args, **options: None  # type: ignore[method-assign, assignment]
    for _ in range(STEPS):
        loss = module.training_step(batch, 0)
        losses = {"sum": loss, **module.guard.waiting[-1].losses}
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        found.append(losses)
    return {name: [losses[name].item() for losses in found] for name in found[0]}


def pixels(batch: int, size: int) -> Tensor:
    return ((spread(batch, 3, size, size) + 1) * 127).byte()


def of_detection(head: Callable[..., SSDLite] = SSDLite, **options: Any) -> Numbers:
    """Five steps of SSDLite."""
    boxes = [torch.tensor([[3.0, 5.0, 40.0, 60.0]]), torch.tensor([[10.0, 10.0, 50.0, 30.0], [30.0, 20.0, 60.0, 62.0]])]
    targets = Targets.collate(boxes * 2, [torch.tensor([1]), torch.tensor([2, 1])] * 2)
    batch = BoxBatch(pixels(4, 96), targets, torch.tensor([[96, 96]] * 4), torch.arange(4))
    return steps(
        DetectionModule(MobileNetV2(width_mult=0.35), ["a", "b"], partial(head, extra_channels=(32,)), size=(96, 96), **options), batch
    )


def of_segmentation() -> Numbers:
    """Five steps of DeepLabv3."""
    masks = ((spread(4, 97, 97, number=3) + 1) * 1.4).byte()
    masks[:, :5] = 255
    backbone = MobileNetV2(width_mult=0.35, output_stride=16)
    module = SegmentationModule(backbone, ["a", "b", "c"], head=partial(DeepLabV3, dropout=0.0), size=(97, 97))
    return steps(module, MaskBatch(list(pixels(4, 97)), list(masks), torch.arange(4)))


def of_classification(label_smoothing: float = 0.1) -> Numbers:
    """Five steps of a classifier."""
    module = ClassificationModule(
        MobileNetV2(width_mult=0.35),
        ["a", "b", "c"],
        head=partial(ClassifierHead, dropout=0.0),
        size=(96, 96),
        label_smoothing=label_smoothing,
    )
    return steps(module, ImageBatch(pixels(6, 96), torch.tensor([0, 2, 1, 0, 1, 2]), torch.arange(6)))


CASES: dict[str, Callable[[], Numbers]] = {
    "MobileNetV2": partial(of_backbone, partial(MobileNetV2, ["layer4", "layer15_expand", "layer18", "layer19"])),
    "MobileNetV2, same, 8": partial(of_backbone, partial(MobileNetV2, ["layer4", "layer18"], 0.5, output_stride=8, padding="same")),
    "MobileNetV1": partial(of_backbone, partial(MobileNetV1, width_mult=0.5)),
    "MobileNetV1, same, 16": partial(of_backbone, partial(MobileNetV1, width_mult=0.25, output_stride=16, padding="same")),
    "ShuffleNetV1": partial(of_backbone, partial(ShuffleNetV1, width_mult=0.5)),
    "NASNetA": partial(of_backbone, partial(NASNetA, repeats=1, penultimate_channels=192)),
    "SSDLite": partial(of_detection_head, SSDLite),
    "SSDLite, sigmoid": partial(of_detection_head, partial(SSDLite, class_loss=SigmoidLoss(), padding="same")),
    "SSDLite, focal": partial(of_detection_head, partial(SSDLite, class_loss=FocalLoss(), anchors="torchvision")),
    "SSD": partial(of_detection_head, SSD),
    "DeepLabV3": partial(of_segmentation_head, DeepLabV3, "layer18"),
    "DeepLabV3, branches": partial(of_segmentation_head, partial(DeepLabV3, atrous_rates=(6, 12, 18), channels=32), "layer14"),
    "DeepLabV3, decoder": partial(
        of_segmentation_head, partial(DeepLabV3, atrous_rates=(6,), decoder=True, separable=True, channels=32), "layer4", "layer14"
    ),
    "LRASPP": partial(of_segmentation_head, LRASPP, "layer7", "layer18"),
    "SmpDecoder, FPN": partial(of_segmentation_head, partial(SmpDecoder, architecture="FPN")),
    "ClassifierHead": of_classifier,
    "five steps of detection": of_detection,
    "five steps of segmentation": of_segmentation,
    "five steps of classification": of_classification,
}


def write() -> None:
    """Renews the file, a line a tensor."""
    cases = []
    for name, case in CASES.items():
        lines = [f'  "{key}": {json.dumps([float(f"{value:.7g}") for value in values])}' for key, values in case().items()]
        cases.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n }")
    FILE.write_text("{\n " + ",\n ".join(cases) + "\n}\n")


if __name__ == "__main__":
    write()
