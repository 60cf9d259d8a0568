"""Finding the class of image files with a checkpoint."""

import csv
from pathlib import Path
from typing import Any

from tasks.images import RGBImage

# Images whose classes are printed; all of them are in the file.
PRINTED = 20


def predict(
    ckpt_path: str,
    images: list[str] | str,
    output: str | None = None,
    top: int = 5,
    device: str = "auto",
) -> None:
    """Finds the likeliest classes of images with a checkpoint.

    Writes one `classes.csv` with the names of the likeliest classes of each image and their probabilities, and prints the first images'. A
    file that cannot be read is named and skipped, and the exit code is then 1.

    Args:
        ckpt_path: a run's checkpoint, or a file that Classifier.save wrote.
        images: files, folders (searched through) and patterns such as 'photos/*.jpg'.
        output: folder for the results; by default `predict` in the run's folder, or `predictions`.
        top: how many classes of each image, at least 1.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
    """
    from tasks.classify.model import Classifier
    from tasks.images import find_images
    from tasks.predict import move, output_folder, predict_files

    if top < 1:
        raise ValueError(f"top {top} is not possible; accepted: 1 or more")
    files = find_images([images] if isinstance(images, str) else images)
    classifier = Classifier.from_checkpoint(ckpt_path)
    move(classifier, device)
    folder, names = output_folder(output, ckpt_path), classifier.class_names
    count = min(top, len(names))

    def one(pixels: RGBImage, name: str) -> dict[str, Any]:
        found = classifier.predict(pixels).topk(count)
        rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ranked = [{f"class_{n}": names[k], f"probability_{n}": round(p, 4)} for n, (k, p) in enumerate(rows, start=1)]
        return {key: value for row in ranked for key, value in row.items()}

    columns = ["file", *(f"{part}_{number}" for number in range(1, count + 1) for part in ("class", "probability"))]
    predict_files(files, folder, one, lambda results: _write_classes(results, columns, folder / "classes.csv"))


def _write_classes(results: list[dict[str, Any]], columns: list[str], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(results)
    for row in results[:PRINTED]:
        values = list(row.values())[1:]
        print(f"{row['file']}: " + ", ".join(f"{name} {share:.2f}" for name, share in zip(values[::2], values[1::2], strict=True)))
    if len(results) > PRINTED:
        print(f"... and {len(results) - PRINTED} more in {path}")
