"""Whole epochs of training, from JPEG files on, against torchvision's SSDLite and the recipe of its reference for it."""

import logging
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset

from tasks.bench import training_peers as peers
from tasks.bench.race import Race
from tasks.detect.annotations import BoxAnnotations, from_coco
from tasks.detect.data import Coco
from tasks.detect.module import DetectionModule
from tasks.detect.transforms import SSDAugmentation
from tasks.memory import give_back_freed_memory, keep_freed_memory
from tasks.optim import Cosine

# One process that reads beside the one that computes, as of two cores.
WORKERS = 1


def epochs(images: str, annotations: str, size: tuple[int, int], batch_size: int, count: int) -> Race:
    """Crops by overlap, mirroring, resizing, network, losses and optimizer; ours as `python -m tasks.detect fit` trains, in bfloat16.

    Args:
        images: folder of JPEG files.
        annotations: their boxes, in COCO's format.
        size: height and width of the network's input in pixels.
        batch_size: images a step.
        count: images of an epoch, the first ones.

    Raises:
        ValueError: there are fewer images than that, or a file cannot be read.
    """
    known = from_coco(annotations, images)
    if not batch_size <= count <= len(known):
        raise ValueError(f"epoch_images {count} is not possible; accepted: {batch_size} (a batch) to {len(known)} (in {annotations})")
    calls = {
        "torchvision": _torchvision(known.select(np.arange(count)), size, batch_size),
        "mobiletap, bfloat16": _ours(images, annotations, size, batch_size, count),
    }
    name = f"an epoch of SSDLite on MobileNetV2, {size[0]} x {size[1]}, {count // batch_size} batches of {batch_size} images from files"
    equal = "recipe and network (losses and gradients: see the step above); draws differ"
    return Race(name, "images", count // batch_size * batch_size, "torchvision", calls, equal, prepare=_prepare, warm_up=0)


class Photos(Dataset[Any]):
    """Images and boxes as torchvision's reference for detection reads and changes them."""

    def __init__(self, known: BoxAnnotations) -> None:
        from torchvision.transforms import v2

        self.known = known
        steps = [v2.RandomIoUCrop(), v2.RandomHorizontalFlip(), v2.PILToTensor(), v2.ToDtype(torch.float, scale=True)]
        self.recipe = v2.Compose([*steps, v2.SanitizeBoundingBoxes(), v2.ToPureTensor()])

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> Any:
        from torchvision import tv_tensors

        rows = self.known.of_image(index)
        with Image.open(str(self.known.files[index])) as opened:
            image = opened.convert("RGB")
        frame: Any = {"format": "XYXY", "canvas_size": (image.height, image.width)}
        boxes = tv_tensors.BoundingBoxes(self.known.boxes[rows], **frame)
        return self.recipe(image, {"boxes": boxes, "labels": torch.from_numpy(self.known.labels[rows])})


def _torchvision(known: BoxAnnotations, size: tuple[int, int], batch_size: int) -> Callable[[], None]:
    network = peers.torchvision_ssdlite(len(known.class_names), size).train()
    optimizer = SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=4e-5)
    loader: Any = DataLoader(Photos(known), batch_size, shuffle=True, drop_last=True, num_workers=WORKERS, collate_fn=_together)

    def epoch() -> None:
        for pictures, targets in loader:
            loss = torch.stack(list(network(list(pictures), list(targets)).values())).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def _together(examples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*examples, strict=True))


def _ours(images: str, annotations: str, size: tuple[int, int], batch_size: int, count: int) -> Callable[[], None]:
    files = {"train_images": images, "train_annotations": annotations, "val_images": images, "val_annotations": annotations}
    recipe = SSDAugmentation(expand_probability=0, colour=0)
    data = Coco(**files, size=size, batch_size=batch_size, augmentation=recipe, num_workers=WORKERS)  # type: ignore[arg-type]
    backbone, head = peers.ssdlite_parts()
    module = DetectionModule(backbone, data.class_names, head, size, schedule=Cosine(warmup_steps=0))
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    limits: dict[str, Any] = {"limit_train_batches": count // batch_size, "limit_val_batches": 0}

    def epoch() -> None:
        log = logging.getLogger("lightning.pytorch")
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            L.Trainer(max_epochs=1, accelerator="cpu", precision="bf16-mixed", **quiet, **limits).fit(module, data)
        finally:
            log.setLevel(before)

    return epoch


def _prepare(name: str) -> None:
    """As a program of its own begins; what was kept would be copied, page by page, once workers share it."""
    give_back_freed_memory()
    if name != "torchvision":
        keep_freed_memory()
