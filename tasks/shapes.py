"""The built-in data set: pictures of plain shapes on clutter, drawn by this module, written in COCO layout or in a folder a class."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SHAPE_CLASSES = ("circle", "square", "triangle", "star", "cross")

# A change of the drawing changes this number, so that old caches are not mistaken for new ones.
VERSION = 1
# Drawn this many times larger and reduced, for smooth edges.
OVERSAMPLING = 2
# Corners of each shape at radius 1; the circle has enough of them to look round.
_ANGLES = {"circle": 48, "square": 4, "triangle": 3, "star": 10}
_CROSS = np.array([(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)])

Points = NDArray[np.float64]


def default_root() -> Path:
    """Where the pictures are kept unless another folder is named: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mobiletap" / "shapes"


def ensure_shapes(root: str | Path, train_images: int, val_images: int, seed: int = 0) -> Path:
    """Draws and writes the data set where it is not there yet.

    Args:
        root: folder that holds all variants of the data set.
        train_images: number of training pictures.
        val_images: number of validation pictures.
        seed: another seed draws other pictures.

    Returns:
        A folder with `train/`, `val/` and `annotations/instances_{train,val}.json` in COCO layout.
    """
    folder = Path(root) / f"v{VERSION}-{train_images}-{val_images}-{seed}"
    Path(root).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(root) / ".lock"):  # the processes of one run may all come here
        for number, (split, count) in enumerate((("train", train_images), ("val", val_images))):
            annotations = folder / "annotations" / f"instances_{split}.json"
            if not annotations.is_file():  # written last, so it stands for the whole split
                _write_split(folder / split, annotations, count, seed=(seed, number))
    return folder


def ensure_shape_folders(root: str | Path, train_images: int, val_images: int, seed: int = 0) -> Path:
    """Draws pictures of one shape each and writes them where they are not there yet.

    Args:
        root: folder that holds all variants of the data set.
        train_images: number of training pictures, spread evenly over the classes.
        val_images: number of validation pictures, spread evenly over the classes.
        seed: another seed draws other pictures.

    Returns:
        A folder with `train/<class>/` and `val/<class>/`.
    """
    folder = Path(root) / f"folders-v{VERSION}-{train_images}-{val_images}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(Path(root) / ".lock"):  # the processes of one run may all come here
        for number, (split, count) in enumerate((("train", train_images), ("val", val_images))):
            if not (folder / split).is_dir():  # renamed last, so it stands for the whole split
                _write_folders(folder / f"{split}.part", count, seed=(seed, number))
                (folder / f"{split}.part").rename(folder / split)
    return folder


def draw_picture(rng: np.random.Generator, kind: int | None = None) -> tuple[Image.Image, list[tuple[int, NDArray[np.bool_]]]]:
    """Draws one picture.

    Args:
        rng: the source of everything random in it.
        kind: index in `SHAPE_CLASSES` of the one shape to draw, near the middle and not too small; by default none to five of any kind.

    Returns:
        The picture, of 160 to 256 pixels a side, and for every object, back to front, its index in `SHAPE_CLASSES` and its visible
        pixels as an (H, W) mask.
    """
    width, height = (int(side) for side in rng.integers(160, 257, size=2))
    canvas = _background(rng, width, height)
    index = Image.new("I", canvas.size)
    draw, draw_index = ImageDraw.Draw(canvas), ImageDraw.Draw(index)
    kinds = _kinds(rng) if kind is None else [kind]
    for number, shape in enumerate(kinds, start=1):
        radius = float(np.exp(rng.uniform(np.log(18 if kind is None else 30), np.log(70))))
        low, high = _reach(np.array([width, height], dtype=np.float64), radius, anywhere=kind is None)
        points = [tuple(p) for p in OVERSAMPLING * (rng.uniform(low, high) + _outline(rng, SHAPE_CLASSES[shape], radius))]
        draw.polygon(points, fill=_colour(rng), outline=_colour(rng), width=OVERSAMPLING)
        draw_index.polygon(points, fill=number)
    picture = canvas.resize((width, height), Image.Resampling.BOX)
    owner = np.asarray(index.resize((width, height), Image.Resampling.NEAREST))
    return picture, [(shape, owner == number) for number, shape in enumerate(kinds, start=1)]


def _kinds(rng: np.random.Generator) -> list[int]:
    count = 0 if rng.random() < 0.08 else int(rng.integers(1, 6))
    return [int(kind) for kind in rng.integers(len(SHAPE_CLASSES), size=count)]


def _reach(size: Points, radius: float, anywhere: bool) -> tuple[Points, Points]:
    """Least and greatest centre: up to half a radius from the border, or so near the middle that a square crop keeps most of the shape."""
    if anywhere:
        return np.full(2, 0.5 * radius), size - 0.5 * radius
    return size / 2 - 0.15 * size.min(), size / 2 + 0.15 * size.min()


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A colour gradient with grain, lines and specks, so that edges and colours alone say nothing."""
    corners = rng.uniform(40, 215, size=(2, 2, 3))
    gradient = Image.fromarray(corners.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    grain = rng.normal(0, rng.uniform(2, 14), size=(height, width, 1))
    pixels = (np.asarray(gradient) + grain).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(pixels).resize((width * OVERSAMPLING, height * OVERSAMPLING), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(0, 9))):
        line = rng.uniform(0, 1, size=(2, 2)) * canvas.size
        draw.line([tuple(p) for p in line], fill=_colour(rng), width=int(rng.integers(1, 5)))
    for _ in range(int(rng.integers(0, 13))):
        corner = rng.uniform(0, 1, size=2) * canvas.size
        end = corner + rng.uniform(2, 10, size=2)
        draw.ellipse([tuple(corner), tuple(end)], fill=_colour(rng))
    return canvas


def _outline(rng: np.random.Generator, name: str, radius: float) -> Points:
    turn = rng.uniform(0, 2 * np.pi)
    if name == "cross":
        points = _CROSS / np.sqrt(10)
    else:
        angles = np.linspace(0, 2 * np.pi, _ANGLES[name], endpoint=False)
        reach = np.where(np.arange(len(angles)) % 2, 0.45, 1.0) if name == "star" else np.ones(len(angles))
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline: Points = points @ rotation * radius
    return outline


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, size=3))
    return red, green, blue


def _write_split(folder: Path, annotations: Path, count: int, seed: tuple[int, int]) -> None:
    from rich.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    annotations.parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in track(range(count), description=f"drawing {folder}"):
        picture, shapes = draw_picture(np.random.default_rng((*seed, number)))
        name = f"{number:06d}.jpg"
        picture.save(folder / name, quality=92)
        images.append({"id": number + 1, "file_name": name, "width": picture.width, "height": picture.height})
        for kind, mask in shapes:
            if mask.sum() >= 40:  # fewer visible pixels cannot be told apart
                objects.append({"id": len(objects) + 1, "image_id": number + 1, "iscrowd": 0, **_annotate(kind, mask)})
    categories = [{"id": number, "name": name} for number, name in enumerate(SHAPE_CLASSES, start=1)]
    data = {"info": {"description": "Shapes"}, "images": images, "annotations": objects, "categories": categories}
    unfinished = annotations.with_suffix(".part")
    unfinished.write_text(json.dumps(data))
    unfinished.rename(annotations)


def _write_folders(folder: Path, count: int, seed: tuple[int, int]) -> None:
    from rich.progress import track

    for name in SHAPE_CLASSES:  # also where few pictures leave one empty: both splits need the same classes
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in track(range(count), description=f"drawing {folder.with_suffix('')}"):
        kind = number % len(SHAPE_CLASSES)
        picture, _ = draw_picture(np.random.default_rng((*seed, number)), kind)
        picture.save(folder / SHAPE_CLASSES[kind] / f"{number:06d}.jpg", quality=92)


def _annotate(kind: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    from pycocotools import mask as rle

    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "category_id": kind + 1,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode()},
    }
