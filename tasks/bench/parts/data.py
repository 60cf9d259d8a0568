"""Training images a second and core, from JPEG files to bytes and boxes in the network's size, against torchvision and albumentations."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from tasks.augment import FILL
from tasks.bench.race import Race
from tasks.cache import REACH, SUFFIXES, ImageCache
from tasks.detect.annotations import BoxAnnotations, from_coco
from tasks.detect.data import BoxDataset
from tasks.detect.transforms import Augmentation, LightAugmentation, ResizeOnly, SSDAugmentation

# Pixels by which boxes may differ where all only resize.
APART = 0.01
# Mean difference of the images there, of 255: torchvision rounds otherwise, albumentations averages with equal weights.
SHADES_APART = {"torchvision v2": 0.5, "albumentations": 8.0}

Example = Callable[[int], tuple[np.ndarray, np.ndarray]]


def races(images: str, annotations: str, size: int = 320, count: int = 100) -> Iterator[Race]:
    """Yields the races; each candidate runs in one thread.

    Args:
        images: folder of JPEG files.
        annotations: their boxes, in COCO's format.
        size: height and width of the network's input.
        count: how many images, the first ones.

    Raises:
        ValueError: where they only resize, two ways have different results.
    """
    found = from_coco(annotations, images)
    known = found.select(np.arange(min(count, len(found))))
    with tempfile.TemporaryDirectory() as folder:
        caches = {kind: ImageCache(folder, round(REACH * size), kind) for kind in SUFFIXES}
        equal = _compare(known, size)
        for title, theirs, other, ours in _recipes(size):
            candidates = {
                "torchvision v2": _torchvision(known, theirs),
                "albumentations": _albumentations(known, other),
                "tasks.detect": _ours(known, ours, size),
            }
            candidates |= {f"tasks.detect, cached as {kind}": _ours(known, ours, size, cache) for kind, cache in caches.items()}
            calls = {name: _all_in_one_thread(example, len(known)) for name, example in candidates.items()}
            yield Race(f"training images, {title}", "images", len(known), "torchvision v2", calls, equal)


def _recipes(size: int) -> Iterator[tuple[str, Any, Any, Augmentation]]:
    """Recipes by their names: torchvision's as in its reference for detection, those of albumentations most like it, and ours."""
    import albumentations as A
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    resize, fill = v2.Resize((size, size), antialias=True), {tv_tensors.Image: FILL, "others": 0}
    ssd = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=fill), v2.RandomIoUCrop(), v2.RandomHorizontalFlip()]  # type: ignore[arg-type]
    other = [
        A.ColorJitter((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05), p=0.8),
        A.RandomScale((-0.75, 0.0), p=0.5),
        A.PadIfNeeded(640, 640, position="random", fill=FILL),
        A.AtLeastOneBBoxRandomCrop(300, 300, p=0.85),
        A.Resize(size, size),
        A.HorizontalFlip(p=0.5),
    ]
    yield "SSD's recipe", [*ssd, v2.SanitizeBoundingBoxes(), resize], other, SSDAugmentation()
    light = [v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes(), resize]
    yield "mirrored", light, [A.Resize(size, size), A.HorizontalFlip(p=0.5)], LightAugmentation(crop=0.0, colour=0.0)


def _of(known: BoxAnnotations, index: int) -> tuple[str, np.ndarray, np.ndarray]:
    rows = known.of_image(index)
    used = ~known.ignored[rows]
    return str(known.files[index]), known.boxes[rows][used], known.labels[rows][used]


def _torchvision(known: BoxAnnotations, transforms: list[Any]) -> Example:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    recipe = v2.Compose([v2.PILToTensor(), *transforms])

    def example(index: int) -> tuple[np.ndarray, np.ndarray]:
        file, boxes, labels = _of(known, index)
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        size = (image.height, image.width)
        targets = {"boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size), "labels": torch.from_numpy(labels)}  # type: ignore[call-overload]
        pixels, targets = recipe(image, targets)
        return pixels.permute(1, 2, 0).numpy(), targets["boxes"].numpy()

    return example


def _albumentations(known: BoxAnnotations, transforms: list[Any]) -> Example:
    import albumentations as A

    recipe = A.Compose(transforms, bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"], clip=True))

    def example(index: int) -> tuple[np.ndarray, np.ndarray]:
        file, boxes, labels = _of(known, index)
        out = recipe(image=cv2.imread(file, cv2.IMREAD_COLOR_RGB), bboxes=boxes, labels=labels)
        return out["image"], np.asarray(out["bboxes"])

    return example


def _ours(known: BoxAnnotations, recipe: Augmentation, size: int, cache: ImageCache | None = None) -> Example:
    dataset = BoxDataset(known, recipe, (size, size), cache)

    def example(index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = dataset[index]
        return sample.image.permute(1, 2, 0).numpy(), sample.boxes.numpy()

    return example


def _all_in_one_thread(example: Example, count: int) -> Callable[[], None]:
    def call() -> None:
        with _one_thread():
            for index in range(count):
                example(index)

    return call


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker of a loader."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _compare(known: BoxAnnotations, size: int) -> str:
    """Lets all resize only, and says what is equal.

    Raises:
        ValueError: boxes or pixels differ.
    """
    import albumentations as A
    from torchvision.transforms import v2

    peers = {
        "torchvision v2": _torchvision(known, [v2.Resize((size, size), antialias=True)]),
        "albumentations": _albumentations(known, [A.Resize(size, size, interpolation=cv2.INTER_AREA)]),
    }
    ours, worst = _ours(known, ResizeOnly(), size), dict.fromkeys(peers, 0.0)
    for index in range(len(known)):
        pixels, boxes = ours(index)
        for name, peer in peers.items():
            theirs, corners = peer(index)
            corners = corners.reshape(-1, 4)[((corners.reshape(-1, 4)[:, 2:] - corners.reshape(-1, 4)[:, :2]) >= 1).all(axis=1)]
            shades = float(np.abs(pixels.astype(int) - theirs).mean())
            worst[name] = max(worst[name], shades)
            if boxes.shape != corners.shape or np.abs(boxes - corners).max(initial=0) > APART or shades > SHADES_APART[name]:
                raise ValueError(f"{known.files[index]}: resized, {name} has other boxes, or pixels {shades:.2f} of 255 apart in the mean")
    apart = ", ".join(f"{shades:.2f} ({name})" for name, shades in worst.items())
    return f"where all only resize, boxes to {APART} pixels; images to a mean of 255ths of {apart}"
