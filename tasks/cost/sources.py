"""Models from configs and checkpoints, without any data set."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentError, ArgumentParser

from backbones.spec import NO_WEIGHTS
from tasks.checkpoint import load_checkpoint
from tasks.cost.networks import COCO_CLASSES, IMAGENET_CLASSES, names
from tasks.data import TaskData
from tasks.model import TaskModel
from tasks.module import TaskModule
from tasks.run_folder import run_folder_of

# The training module of each task.
MODULES = {"detect": "DetectionModule", "segment": "SegmentationModule", "classify": "ClassificationModule"}
# Classes of data sets that are not at hand, by the data class's name or the name of torchvision's data set.
USUAL_CLASSES = {
    "Coco": COCO_CLASSES,
    "ImageFolder": IMAGENET_CLASSES,
    "CIFAR10": 10,
    "CIFAR100": 100,
    "FGVCAircraft": 100,
    "Flowers102": 102,
    "Food101": 101,
    "Imagenette": 10,
    "OxfordIIITPet": 37,
    "STL10": 10,
}


class Source(NamedTuple):
    """A model to look at.

    Attributes:
        name: of the config, the run or the file.
        model: in evaluation mode; that of a config has new weights, or none on the meta device.
        notes: what is to be said of how it was built.
    """

    name: str
    model: TaskModel
    notes: tuple[str, ...] = ()


def load(path: str | Path, device: str = "meta", num_classes: int | None = None) -> Source:
    """Builds the model of a config, or that of a checkpoint.

    Args:
        path: a YAML config of any task, or a run's checkpoint, or a file that `save` of a model wrote.
        device: where a config's model is built; `meta` needs neither time nor memory.
        num_classes: number of classes (in detection without the background) instead of that of the config's data.

    Raises:
        ValueError: the file cannot be read, is of another kind, or does not tell its number of classes.
    """
    path = Path(path)
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes {num_classes} is not possible; accepted: at least 1")
    if path.suffix in (".yaml", ".yml"):
        return _from_config(path, device, num_classes)
    if num_classes is not None:
        raise ValueError(f"{path}: a checkpoint has its own classes; num_classes is for configs")
    return _from_checkpoint(path)


def _from_checkpoint(path: Path) -> Source:
    checkpoint = load_checkpoint(path)
    kinds = {module.model_class.kind: module.model_class for module in map(_module_class, MODULES)}
    found = [model_class for kind, model_class in kinds.items() if kind in checkpoint]
    if not found:
        raise ValueError(f"{path}: holds no {', '.join(kinds)}; accepted: a run's checkpoint, or a file that a model's save wrote")
    run = run_folder_of(path)
    return Source(run.name if run else path.stem, found[0].from_checkpoint(path))


def _from_config(path: Path, device: str, num_classes: int | None) -> Source:
    content = _read(path)
    module_class = _module_class(_task(path, content))
    data: TaskData = _instantiate(
        path, {"data": content["data"]}, partial(ArgumentParser.add_subclass_arguments, baseclass=TaskData, nested_key="data")
    )
    if hasattr(data, "download"):
        data.download = False
    count, notes = (num_classes, ()) if num_classes else _class_count(path, data)
    linked = {name: getattr(data, name) for name in data.linked if name != "class_names"} | {"class_names": names(count)}
    settings = _model_settings(module_class, content["model"]) | linked
    with torch.device(device):
        add_arguments = partial(ArgumentParser.add_class_arguments, theclass=module_class.model_class, nested_key="model")
        model: TaskModel = _instantiate(path, {"model": settings}, add_arguments)
    return Source(path.parent.name if path.stem == "config" else path.stem, model.eval(), notes)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such config")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as YAML") from error
    missing = [key for key in ("data", "model") if not isinstance(content, dict) or not isinstance(content.get(key), dict)]
    if missing:
        raise ValueError(f"{path}: has no section {' and no section '.join(missing)}; accepted: configs such as those in configs/")
    found: dict[str, Any] = content
    return found


def _task(path: Path, content: Mapping[str, Any]) -> str:
    """The task that a config is of, by its data set, or else by its folder."""
    tasks = [str(content["data"].get("class_path")).removeprefix("tasks.").partition(".")[0], *reversed(path.resolve().parent.parts)]
    for task in tasks:
        if task in MODULES:
            return task
    raise ValueError(f"{path}: its data is of no known task; accepted: data of tasks.{', tasks.'.join(MODULES)}")


def _module_class(task: str) -> type[TaskModule]:
    module: type[TaskModule] = getattr(importlib.import_module(f"tasks.{task}.module"), MODULES[task])
    return module


def _model_settings(module_class: type[TaskModule], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are the plain model's own: loss, optimizer and the like stay out, and so do files of weights."""
    known, own = (inspect.signature(cls).parameters for cls in (module_class, module_class.model_class))
    head = known["head"].default
    default = {"head": {"class_path": f"{head.__module__}.{head.__qualname__}"}}
    return default | {key: _without_weights(value) for key, value in settings.items() if key in own or key not in known}


def _instantiate(path: Path, content: dict[str, Any], add_arguments: Callable[[ArgumentParser], Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    try:
        return next(iter(parser.instantiate_classes(parser.parse_object(content)).as_dict().values()))
    except (ArgumentError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = [line for line in lines if line and not line.startswith(("Given value", "- Expected a <class 'NoneType'>"))][-1]
        raise ValueError(f"{path}: cannot be built: {reason}") from error


def _class_count(path: Path, data: TaskData) -> tuple[int, tuple[str, ...]]:
    """Asks the data, or takes the usual number where it is not there."""
    try:
        return len(data.class_names), ()
    except (ValueError, OSError) as error:
        if given := getattr(data, "classes", None) or getattr(data, "names", None):
            return len(given), ()
        named = (getattr(data, "set_name", ""), type(data).__name__)
        usual = next((USUAL_CLASSES[name] for name in named if name in USUAL_CLASSES), None)
        if usual is None:
            raise ValueError(f"{path}: its number of classes cannot be known without its data; give --num_classes") from error
        return usual, (f"{usual} classes are assumed, for the data is not there; --num_classes changes that",)


def _without_weights(settings: Any) -> Any:
    """A copy of a model's settings that loads and fetches no files."""
    if not isinstance(settings, dict):
        return settings
    return {key: NO_WEIGHTS[key] if key in NO_WEIGHTS else _without_weights(value) for key, value in settings.items()}
