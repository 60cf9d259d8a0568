"""Finding objects in image files with a checkpoint."""

import json
from typing import Any

from tasks.images import RGBImage


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
        ckpt_path: a run's checkpoint, or a file that Detector.save wrote, or one of `export` (.onnx, or OpenVINO's .xml).
        images: files, folders (searched through) and patterns such as 'photos/*.jpg'.
        output: folder for the results; by default `predict` in the run's folder, or `predictions`.
        score_threshold: least score in 0..1 of what is drawn and written.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
    """
    import torch

    from tasks.detect.model import Detector
    from tasks.detect.report import draw_detections
    from tasks.images import find_images
    from tasks.pictures import write_png
    from tasks.predict import load, output_folder, predict_files

    files = find_images([images] if isinstance(images, str) else images)
    detector = load(Detector, ckpt_path, device)
    folder = output_folder(output, ckpt_path)

    def one(pixels: RGBImage, name: str) -> dict[str, Any]:
        found = detector.predict(pixels)
        picture = draw_detections(torch.from_numpy(pixels).permute(2, 0, 1), found, detector.class_names, score_threshold)
        write_png(picture, folder / f"{name}.png")
        objects = [
            {"class_name": detector.class_names[label - 1], "label": label, "score": round(score, 4), "box": [round(v, 1) for v in box]}
            for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
            if score >= score_threshold
        ]
        return {"picture": f"{name}.png", "width": pixels.shape[1], "height": pixels.shape[0], "detections": objects}

    predict_files(files, folder, one, lambda results: (folder / "detections.json").write_text(json.dumps(results, indent=1) + "\n"))
