"""Every shipped config trains a step, evaluates a batch and writes its results, in this process."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.datasets import FakeData

from backbones import MobileNetV2
from tasks.classify.__main__ import main as classify
from tasks.classify.model import Classifier
from tasks.detect.__main__ import main as detect
from tasks.detect.model import Detector
from tasks.labels import VOC_CLASSES
from tasks.model import TaskModel
from tasks.pictures import write_mask
from tasks.segment.__main__ import main as segment
from tasks.segment.model import Segmenter

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(path for task in ("classify", "detect", "segment") for path in (FOLDER / task).glob("*.yaml"))


class Task(NamedTuple):
    """What differs between tasks: command line, kind of model, flags for small data, the figure that counts, and files of a run."""

    main: Callable[[list[str]], None]
    model: type[TaskModel]
    flags: list[str]
    figure: str
    files: tuple[str, ...]


TASKS = {
    "detect": Task(detect, Detector, ["--data.size=[96, 96]"], "val/AP", ("detections.json", "pictures/precision_recall.png")),
    "segment": Task(
        segment,
        Segmenter,
        ["--data.size=[65, 65]", "--data.crop_size=[65, 65]"],
        "val/mIoU",
        ("confusion.csv", "pictures/classes.png"),
    ),
    "classify": Task(classify, Classifier, ["--data.size=[32, 32]"], "val/top1", ("confusion.csv", "pictures/classes.png")),
}

QUICK = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"),
    *("--data.batch_size=2", "--data.num_workers=0", "--trainer.enable_progress_bar=false"),
]


def write_voc(root: Path) -> None:
    """Writes a VOCdevkit of three images a split, with boxes and masks."""
    for year, splits in (("2007", ("trainval", "test")), ("2012", ("trainval", "train", "val", "train_aug"))):
        folder = root / f"VOC{year}"
        lists, masks = ("ImageSets/Main", "ImageSets/Segmentation"), ("SegmentationClass", "SegmentationClassAug")
        for name in (*lists, *masks, "Annotations", "JPEGImages"):
            (folder / name).mkdir(parents=True)
        mask = np.zeros((120, 160), dtype=np.uint8)
        mask[30:100, 20:90], mask[:5] = 5, 255
        for split in splits:
            names = [f"{year}_{split}_{n}" for n in range(3)]
            for kind in lists:
                (folder / kind / f"{split}.txt").write_text("\n".join(names))
            for name in names:
                pixels = np.random.default_rng(0).integers(0, 255, size=(120, 160, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
                for kind in masks:
                    write_mask(mask, folder / kind / f"{name}.png")
                box = "<bndbox><xmin>20</xmin><ymin>30</ymin><xmax>90</xmax><ymax>100</ymax></bndbox>"
                (folder / "Annotations" / f"{name}.xml").write_text(
                    "<annotation><size><width>160</width><height>120</height></size>"
                    f"<object><name>{VOC_CLASSES[4]}</name><difficult>0</difficult>{box}</object></annotation>"
                )


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> dict[str, list[str]]:
    """Flags that put a few small images in the place of each data set."""
    from tasks.shapes import ensure_shape_folders, ensure_shapes

    voc = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    write_voc(voc)
    shapes = ensure_shapes(shapes_root, 8, 4)
    paths = {f"{split}_images": shapes / split for split in ("train", "val")}
    for split in ("train", "val"):  # with a name of COCO's
        paths[f"{split}_annotations"] = voc.with_name(f"{split}.json")
        content = (shapes / "annotations" / f"instances_{split}.json").read_text()
        paths[f"{split}_annotations"].write_text(content.replace('"circle"', '"cat"'))
    return {
        "Voc": [f"--data.root={voc}"],
        "Coco": [f"--data.{name}={path}" for name, path in paths.items()],
        "ImageFolder": [f"--data.root={ensure_shape_folders(shapes_root, 8, 4)}"],
        "Torchvision": [f"--data.root={shapes_root}", "--data.download=false"],
        "Shapes": [f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4"],
    }


class FewPictures(FakeData):
    """In the place of torchvision's CIFAR10."""

    classes = ("plane", "car", "bird")

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        super().__init__(8 if train else 4, (3, 32, 32), len(self.classes))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_trains_and_evaluates(
    config: Path, small_data: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backbones.mobilenet_v2.load_weights", lambda *args, **kwargs: None)
    monkeypatch.setattr(TaskModel, "load_weights", lambda *args, **kwargs: None)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FewPictures)
    content, task = yaml.safe_load(config.read_text()), TASKS[config.parent.name]
    module, _, data = content["data"]["class_path"].rpartition(".")
    assert module == f"tasks.{config.parent.name}.data"
    task.main(["fit", "--config", str(config), *QUICK, *task.flags, *small_data[data], f"--runs={tmp_path}"])
    run = tmp_path / config.parent.name / content["name"]
    figure = json.loads((run / "metrics.json").read_text())[task.figure]
    assert 0 <= figure <= 1 or figure == -1
    for file in ("config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt", *task.files):
        assert (run / file).is_file(), file
    for picture in ("predictions.png", "curves.png", *(Path(file).name for file in task.files if file.endswith(".png"))):
        with Image.open(run / "pictures" / picture) as drawn:
            assert min(drawn.size) > 100
    assert list(run.glob("events.out.tfevents*"))
    model = task.model.from_checkpoint(run / "checkpoints" / "best.ckpt")
    outputs = model(torch.zeros(1, 3, *model.size))
    if isinstance(model, Detector):
        assert outputs.class_logits.shape[2] == len(model.class_names) + 1
    else:
        cells = () if isinstance(model, Classifier) else model.size
        assert outputs.shape == (1, len(model.class_names), *cells)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_has_a_header_and_is_named_after_its_run(config: Path) -> None:
    text = config.read_text()
    head = text.split("name:")[0]
    for part in ("# From:", "# Time:", "# Command:"):
        assert part in head
    assert "# Expected:" in head or "# Reaches:" in head
    assert not re.search(r"REACHES|TIMES", head)
    assert {"data", "model", "trainer"} <= set(yaml.safe_load(text))
    assert yaml.safe_load(text)["name"] == config.stem
    assert f"/{config.name}" in head or f"python -m tasks.{config.parent.name} fit\n" in head
    # Widths of heads are their own; those of features come from the taps.
    assert set(re.findall(r"\w*channels\w*", text)) <= {"channels", "extra_channels", "channels_last"}


def test_paper_config_has_the_papers_size() -> None:
    from jsonargparse import ArgumentParser

    from tasks.detect.module import DetectionModule

    content = yaml.safe_load((FOLDER / "detect" / "ssdlite320_mobilenet_v2_coco.yaml").read_text())["model"]
    content["backbone"]["init_args"]["weights"] = None
    parser = ArgumentParser()
    parser.add_class_arguments(DetectionModule, "model")
    built = parser.instantiate_classes(parser.parse_object({"model": content | {"class_names": [str(k) for k in range(80)]}}))
    assert isinstance(built.model.model.backbone, MobileNetV2)
    assert sum(p.numel() for p in built.model.parameters()) == 4_337_013
