"""Finding objects in image files with a checkpoint."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tasks.run_folder import run_folder_of


def predict(
    ckpt_path: str,
    images: list[str] | str,
    output: str | None = None,
    score_threshold: float = 0.3,
    device: str = "auto",
) -> None:
    """Finds objects in images with a checkpoint and draws them.

    Writes an annotated picture of each image and one `detections.json` with boxes (x1 y1 x2 y2) in pixels of the original image, class
    names and scores. A file that cannot be read is named and skipped, and the exit code is then 1.

    Args:
        ckpt_path: a run's checkpoint, or a file that Detector.save wrote.
        images: files, folders (searched through) and patterns such as 'photos/*.jpg'.
        output: folder for the results; by default `predict` in the run's folder, or `predictions`.
        score_threshold: least score in 0..1 of what is drawn and written.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
    """
    import torch
    from rich.progress import track

    from tasks.detect.model import Detector
    from tasks.images import find_images

    files = find_images([images] if isinstance(images, str) else images)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    detector = Detector.from_checkpoint(ckpt_path)
    try:
        detector.to(where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    run = run_folder_of(Path(ckpt_path))
    folder = Path(output) if output else (run / "predict" if run else Path("predictions"))
    folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    twins = Counter(file.stem for file in files)  # of different folders or endings
    for number, file in enumerate(track(files, description="predict")):
        try:
            picture = folder / (f"{file.stem}.png" if twins[file.stem] == 1 else f"{file.stem}_{number:04d}.png")
            results.append({"file": str(file), "picture": picture.name} | _predict_one(detector, file, picture, score_threshold))
        except ValueError as error:
            unreadable.append(str(error))
    (folder / "detections.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{len(results)} of {len(files)} images done, results are in {folder}")
    if unreadable:
        sys.exit("\n".join([f"{len(unreadable)} skipped:", *unreadable]))


def _predict_one(detector: Any, file: Path, picture: Path, threshold: float) -> dict[str, Any]:
    import torch

    from tasks.detect.report import draw_detections
    from tasks.images import read_image
    from tasks.pictures import write_png

    pixels = read_image(file)
    found = detector.predict(pixels)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    write_png(draw_detections(image, found, detector.class_names, threshold), picture)
    objects = [
        {"class_name": detector.class_names[label - 1], "label": label, "score": round(score, 4), "box": [round(v, 1) for v in box]}
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        if score >= threshold
    ]
    return {"width": pixels.shape[1], "height": pixels.shape[0], "detections": objects}
