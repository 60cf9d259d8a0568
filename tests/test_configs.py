"""Every shipped config trains a step, evaluates a batch and writes its results, in this process."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from backbones import MobileNetV2
from tasks.detect.__main__ import main
from tasks.detect.model import Detector
from tasks.labels import VOC_CLASSES

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))

QUICK = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"),
    *("--data.batch_size=2", "--data.num_workers=0", "--data.size=[96, 96]", "--trainer.enable_progress_bar=false"),
]


def write_voc(root: Path) -> None:
    """Writes a VOCdevkit of three images a split."""
    for year, splits in (("2007", ("trainval", "test")), ("2012", ("trainval", "train", "val"))):
        folder = root / f"VOC{year}"
        for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (folder / name).mkdir(parents=True)
        for split in splits:
            names = [f"{year}_{split}_{n}" for n in range(3)]
            (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names))
            for name in names:
                pixels = np.random.default_rng(0).integers(0, 255, size=(120, 160, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
                box = "<bndbox><xmin>20</xmin><ymin>30</ymin><xmax>90</xmax><ymax>100</ymax></bndbox>"
                (folder / "Annotations" / f"{name}.xml").write_text(
                    "<annotation><size><width>160</width><height>120</height></size>"
                    f"<object><name>{VOC_CLASSES[4]}</name><difficult>0</difficult>{box}</object></annotation>"
                )


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> dict[str, list[str]]:
    """Flags that put a few small images in the place of each data set."""
    from tasks.shapes import ensure_shapes

    voc = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    write_voc(voc)
    shapes = ensure_shapes(shapes_root, 8, 4)
    paths = {
        f"{split}_{kind}": shapes / where
        for split in ("train", "val")
        for kind, where in (("images", split), ("annotations", f"annotations/instances_{split}.json"))
    }
    return {
        "tasks.detect.data.Voc": [f"--data.root={voc}"],
        "tasks.detect.data.Coco": [f"--data.{name}={path}" for name, path in paths.items()],
        "tasks.detect.data.Shapes": [f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4"],
    }


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_trains_and_evaluates(
    config: Path, small_data: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backbones.mobilenet_v2.load_torchvision_weights", lambda *args, **kwargs: None)
    content = yaml.safe_load(config.read_text())
    main(["fit", "--config", str(config), *QUICK, *small_data[content["data"]["class_path"]], f"--runs={tmp_path}"])
    run = tmp_path / "detect" / content["name"]
    figures = json.loads((run / "metrics.json").read_text())
    assert 0 <= figures["val/AP"] <= 1 or figures["val/AP"] == -1
    for file in ("config.yaml", "metrics.csv", "detections.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / file).is_file(), file
    for picture in ("predictions", "precision_recall", "curves"):
        with Image.open(run / "pictures" / f"{picture}.png") as drawn:
            assert min(drawn.size) > 100
    assert list(run.glob("events.out.tfevents*"))
    detector = Detector.from_checkpoint(run / "checkpoints" / "best.ckpt")
    assert detector(torch.zeros(1, 3, 96, 96)).class_logits.shape[2] == len(detector.class_names) + 1


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
    assert f"/{config.name}" in head or "python -m tasks.detect fit\n" in head
    assert "channels" not in text.replace("extra_channels", "").replace("channels_last", "")


def test_paper_config_has_the_papers_size() -> None:
    from jsonargparse import ArgumentParser

    from tasks.detect.module import DetectionModule

    content = yaml.safe_load((CONFIGS[0].parent / "ssdlite320_mobilenet_v2_coco.yaml").read_text())["model"]
    content["backbone"]["init_args"]["weights"] = None
    parser = ArgumentParser()
    parser.add_class_arguments(DetectionModule, "model")
    built = parser.instantiate_classes(parser.parse_object({"model": content | {"class_names": ["x"] * 80}}))
    assert isinstance(built.model.model.backbone, MobileNetV2)
    assert sum(p.numel() for p in built.model.parameters()) == 4_337_013
