"""Running a checkpoint over image files, for all tasks."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tasks.export.engines import EXPORTED
from tasks.images import RGBImage, read_ahead
from tasks.model import TaskModel
from tasks.run_folder import run_folder_of

Model = TypeVar("Model", bound=TaskModel)


def output_folder(output: str | None, ckpt_path: str) -> Path:
    """Returns the folder that was asked for, or `predict` in the checkpoint's run, or `predictions`."""
    run = run_folder_of(Path(ckpt_path))
    return Path(output) if output else (run / "predict" if run else Path("predictions"))


def move(model: TaskModel, device: str) -> None:
    """Moves a model to `cpu`, `cuda`, ... or, for `auto`, to a GPU where there is one.

    Raises:
        ValueError: the device cannot be used.
    """
    import torch

    try:
        model.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def load(model_class: type[Model], path: str, device: str) -> Model:
    """Opens a checkpoint on a device, see `move`, or an exported file, which runs on the CPU.

    Raises:
        ValueError: the file cannot be read, holds another kind of model, or the device cannot be used.
    """
    if Path(path).suffix not in EXPORTED:
        model = model_class.from_checkpoint(path)
        move(model, device)
        return model
    if device not in ("auto", "cpu"):
        raise ValueError(f"device {device!r} cannot be used by the exported file {path}; accepted: auto, cpu")
    return model_class.from_exported(path)


def predict_files(
    files: list[Path], folder: Path, one: Callable[[RGBImage, str], dict[str, Any]], write: Callable[[list[dict[str, Any]]], object]
) -> None:
    """Goes through image files; those that cannot be read are named and skipped, and then the exit code is 1.

    Args:
        files: image files.
        folder: for the results; made where it is missing.
        one: turns an image into its results; also gets a file name without ending that no other image has.
        write: gets the results of all images, each with its `file`.
    """
    from rich.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    twins, taken = Counter(file.stem for file in files), set[str]()  # files of different folders or endings share their stem
    for number, (file, pixels) in enumerate(zip(track(files, description="predict"), read_ahead(files), strict=True)):
        try:
            name = file.stem if twins[file.stem] == 1 else f"{file.stem}_{number:04d}"
            while name != file.stem and (name in twins or name in taken):
                name += "_"
            taken.add(name)
            results.append({"file": str(file)} | one(pixels(), name))
        except ValueError as error:
            unreadable.append(str(error))
    write(results)
    print(f"{len(results)} of {len(files)} images done, results are in {folder}")
    if unreadable:
        sys.exit("\n".join([f"{len(unreadable)} skipped:", *unreadable]))
