"""A detector learns a handful of real photos by heart."""

import json
from pathlib import Path

import pytest

from tasks.detect.__main__ import main


@pytest.mark.slow
def test_eight_coco_images_are_overfitted(shared: Path, tmp_path: Path) -> None:
    data = json.loads((shared / "data/coco/annotations/instances_val.json").read_text())
    # Objects under 64 pixels a side at 640 are under the smallest anchors at 320.
    large = [a for a in data["annotations"] if not a["iscrowd"] and a["area"] > 4000]
    kept = set(list(dict.fromkeys(a["image_id"] for a in large))[:8])
    data["annotations"] = [a for a in large if a["image_id"] in kept]
    data["images"] = [image for image in data["images"] if image["id"] in kept]
    annotations = tmp_path / "eight.json"
    annotations.write_text(json.dumps(data))
    weights = shared / "weights/imagenet/mobilenet_v2_1.0_224.safetensors"
    images = shared / "data/coco/val"
    config = Path(__file__).parents[3] / "configs/detect/ssdlite320_mobilenet_v2_vocsubset.yaml"
    main(
        [
            "fit",
            "--config",
            str(config),
            "--data=tasks.detect.data.Coco",
            "--name=eight",
            f"--runs={tmp_path}",
            f"--data.train_images={images}",
            f"--data.val_images={images}",
            "--data.batch_size=8",
            "--data.num_workers=0",
            f"--data.train_annotations={annotations}",
            f"--data.val_annotations={annotations}",
            "--data.augmentation=tasks.detect.transforms.ResizeOnly",
            f"--model.backbone.weights={weights}",
            "--model.backbone.frozen_layers=0",
            "--model.head.bn_momentum=0.1",
            "--model.backbone.bn_momentum=0.1",
            "--trainer.max_epochs=200",
            "--trainer.check_val_every_n_epoch=200",
            "--trainer.callbacks=null",
            "--model.schedule.warmup_steps=20",
        ]
    )
    assert json.loads((tmp_path / "detect/eight/metrics.json").read_text())["val/AP50"] > 0.9
