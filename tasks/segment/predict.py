"""Finding the class of every pixel of image files with a checkpoint."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.images import RGBImage


def predict(
    ckpt_path: str,
    images: list[str] | str,
    output: str | None = None,
    scales: list[float] | None = None,
    flip: bool | None = None,
    sliding: bool | None = None,
    device: str = "auto",
) -> None:
    """Finds the class of every pixel of images with a checkpoint and draws them.

    Writes for each image a palette PNG of class indices at its own size (`masks/`) and an overlay with the names of what it shows
    (`overlays/`), and one `shares.csv` with the share of each class in each image. A file that cannot be read is named and skipped, and the
    exit code is then 1.

    Args:
        ckpt_path: a run's checkpoint, or a file that Segmenter.save wrote, or one of `export` (.onnx, or OpenVINO's .xml).
        images: files, folders (searched through) and patterns such as 'photos/*.jpg'.
        output: folder for the results; by default `predict` in the run's folder, or `predictions`.
        scales: sizes at which to look at an image, in sizes of the network's input; by default the checkpoint's.
        flip: look at the mirror image too; by default as the checkpoint says.
        sliding: move a window over larger images, instead of reducing them; by default as the checkpoint says.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
    """
    import torch

    from tasks.images import find_images
    from tasks.pictures import add_legend, overlay, voc_palette, write_mask, write_png
    from tasks.predict import load, output_folder, predict_files
    from tasks.segment.model import Segmenter

    files = find_images([images] if isinstance(images, str) else images)
    segmenter = load(Segmenter, ckpt_path, device)
    segmenter.set_looks(
        segmenter.scales if scales is None else scales,
        segmenter.flip if flip is None else flip,
        segmenter.sliding if sliding is None else sliding,
    )
    folder, names = output_folder(output, ckpt_path), segmenter.class_names

    def one(pixels: RGBImage, name: str) -> dict[str, Any]:
        mask = segmenter.predict(pixels).cpu()
        write_mask(mask.numpy(), folder / "masks" / f"{name}.png")
        counts = torch.bincount(mask.flatten(), minlength=len(names))
        seen = [v for v in counts.nonzero().flatten().tolist() if v > 0]
        picture = overlay(torch.from_numpy(pixels).permute(2, 0, 1), mask)
        write_png(add_legend(picture, [names[v] for v in seen], voc_palette()[seen]), folder / "overlays" / f"{name}.png")
        return {"mask": f"masks/{name}.png", "shares": (counts / mask.numel()).tolist()}

    predict_files(files, folder, one, lambda results: _write_shares(results, names, folder / "shares.csv"))


def _write_shares(results: list[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "mask", *names])
        writer.writerows([row["file"], row["mask"], *(round(share, 4) for share in row["shares"])] for row in results)
