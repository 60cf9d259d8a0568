"""The command line: run folders, resuming, errors, predict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tasks.detect.__main__ import main


@pytest.fixture
def quick(shapes_root: Path, tmp_path: Path) -> list[str]:
    """Flags for a run of seconds on few shapes."""
    return [
        *(f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4", "--data.size=[96,96]"),
        *("--data.batch_size=4", "--data.num_workers=0", f"--runs={tmp_path}", "--trainer.log_every_n_steps=1"),
        *("--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false", "--trainer.precision=32-true"),
    ]


def states(checkpoint: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(checkpoint, weights_only=True)
    return loaded["state_dict"] | {f"current {k}": v for k, v in loaded["current_model_state"].items()}


def test_default_config_runs_and_resumes(quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "detect" / "ssdlite_mobilenet_v2_shapes"
    main(["fit", *quick, "--trainer.max_epochs=1"])
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    main(["fit", *quick, "--trainer.max_epochs=2", "--ckpt_path=last", "--allow_changes=true"])
    resumed = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == 4
    assert resumed["epoch"] == 1
    assert not (tmp_path / "detect" / "ssdlite_mobilenet_v2_shapes-2").exists()
    steps = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=int)
    assert {"0", "1", "2", "3"} <= set(steps)
    main(["fit", *quick, "--trainer.max_epochs=1"])
    assert (tmp_path / "detect" / "ssdlite_mobilenet_v2_shapes-2" / "metrics.json").is_file()


def test_saved_config_repeats_the_run(quick: list[str], tmp_path: Path) -> None:
    first, second = (tmp_path / "detect" / f"ssdlite_mobilenet_v2_shapes{end}" for end in ("", "-2"))
    main(["fit", *quick, "--trainer.max_epochs=1"])
    main(["fit", "--config", str(first / "config.yaml")])
    assert all(torch.equal(a, b) for a, b in zip(*(states(r / "checkpoints/last.ckpt").values() for r in (first, second)), strict=True))
    assert json.loads((first / "metrics.json").read_text())["val/AP"] == json.loads((second / "metrics.json").read_text())["val/AP"]


def test_validate_uses_the_config_of_the_checkpoints_run(quick: list[str], tmp_path: Path) -> None:
    run = tmp_path / "detect" / "ssdlite_mobilenet_v2_shapes"
    main(["fit", *quick, "--trainer.max_epochs=1"])
    for command in ("validate", "test"):
        main([command, "--ckpt_path", str(run / "checkpoints/best.ckpt")])
        again = json.loads((run / command / "metrics.json").read_text())
        assert again["images"] == 4
        assert again["val/AP"] == json.loads((run / "metrics.json").read_text())["val/AP"]


def test_other_config_gets_nothing_of_the_default_one(quick: list[str], tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("name: own\ndata: {class_path: tasks.detect.data.Shapes}\nmodel: {backbone: {class_path: backbones.MobileNetV2}}\n")
    main(["fit", "--config", str(config), *quick, "--trainer.max_epochs=1"])
    saved = yaml.safe_load((tmp_path / "detect/own/config.yaml").read_text())
    main(["fit", "--config", str(tmp_path / "detect/own/config.yaml")])  # defaults can be read back too
    assert (tmp_path / "detect/own-2/metrics.json").is_file()
    assert saved["model"]["backbone"]["init_args"]["width_mult"] == 1.0
    assert saved["trainer"]["callbacks"] is None


def test_predict_writes_pictures_and_names_bad_files(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "detect" / "ssdlite_mobilenet_v2_shapes"
    main(["fit", *quick, "--trainer.max_epochs=1"])
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (120, 80), "red").save(photos / "good.jpg")
    (photos / "broken.png").write_bytes(b"not a picture")
    flags = [f"--ckpt_path={run / 'checkpoints/best.ckpt'}", f"--images={photos}", "--score_threshold=0.0001"]
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *flags])
    assert "broken.png" in str(stopped.value)
    (found,) = json.loads((run / "predict" / "detections.json").read_text())
    assert (found["width"], found["height"]) == (120, 80)
    with Image.open(run / "predict" / found["picture"]) as picture:
        assert picture.size == (120, 80)
    for detection in found["detections"]:
        x1, y1, x2, y2 = detection["box"]
        assert 0 <= x1 <= x2 <= 120
        assert 0 <= y1 <= y2 <= 80
        assert detection["class_name"] in ("circle", "square", "triangle", "star", "cross")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fit", "--ckpt_path=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["fit", "--ckpt_path=last", "--name=never_run"], "last.ckpt: no such checkpoint"),
        (["predict", "--ckpt_path=nowhere.ckpt", "--images=nowhere"], "matches no image"),
        (
            ["fit", "--data=tasks.detect.data.Coco", "--data.root=nowhere"],
            "error: nowhere/annotations/instances_val2017.json: no such",
        ),
        (["fit", "--data.batch_size=0"], "batch_size 0"),
        (["validate"], "validate needs --ckpt_path"),
        (["fit", "--trainer.max_epochs=-1"], "max_epochs"),
        (["fit", "--model.backbone.taps=[layer99]"], "layer99"),
        (["fit", "--model.head.anchors.min_scale=high"], "min_scale"),
        (["fit", "--model.backbone=backbones.Nothing"], "Nothing"),
    ],
)
def test_user_errors_are_one_sentence(
    args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([args[0], *args[1:]])
    assert stopped.value.code not in (0, None)
    assert said in f"{stopped.value}{capsys.readouterr().err}"


@pytest.mark.parametrize(("task", "head"), [("detect", "SSDLite"), ("segment", "DeepLabV3")])
def test_help_comes_without_the_heavy_imports(task: str, head: str) -> None:
    # matplotlib is imported by torchmetrics, and that by Lightning.
    code = (
        f"import sys\nfrom tasks.{task}.__main__ import main\n"
        "try: main(['fit', '--help'])\nexcept SystemExit: pass\n"
        "print('heavy:', {'albumentations', 'pycocotools', 'timm', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: set()" in done.stdout
    assert head in done.stdout
    assert "MobileNetV2" in done.stdout


def test_failure_in_a_loader_worker_is_one_sentence(quick: list[str], tmp_path: Path) -> None:
    from tasks.shapes import ensure_shapes

    folder = ensure_shapes(tmp_path / "data", 8, 4)
    picture = next((folder / "train").iterdir())
    picture.write_bytes(picture.read_bytes()[:-500])  # whose beginning is good, so that it is found in training only
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *quick, f"--data.root={tmp_path / 'data'}", "--data.num_workers=1", "--trainer.max_epochs=1"])
    assert "cannot be read as an image" in str(stopped.value)
    assert "Traceback" not in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_checkpoint_of_another_detector_is_refused(quick: list[str], tmp_path: Path) -> None:
    main(["fit", *quick, "--trainer.max_epochs=1"])
    checkpoint = f"--ckpt_path={tmp_path / 'detect/ssdlite_mobilenet_v2_shapes/checkpoints/last.ckpt'}"
    with pytest.raises(SystemExit, match="another architecture"):
        main(["validate", checkpoint, "--model.backbone.width_mult=0.75"])
    with pytest.raises(SystemExit, match="mean"):
        main(["validate", checkpoint, "--model.mean=[0.5,0.5,0.5]"])
    with pytest.raises(SystemExit, match="belongs to the run"):
        main(["fit", *quick, checkpoint, "--name=ssdlite"])  # only the beginning of its name


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("data.batch_size=-1", "size (96, 96), batch_size -1, num_workers 0: sizes and batches are at least 1, workers at least 0"),
        ("data.augmentation.crop=-1", "crop -1.0 is not possible; accepted: 0 to 1"),
        ("model.mean=[]", "mean [] is not possible; accepted: three numbers, of red, green and blue"),
        ("model.std=[1, 0, 1]", "std [1.0, 0.0, 1.0] is not possible; accepted: three positive numbers, of red, green and blue"),
        ("model.head.extra_channels=[-1]", "extra_channels [-1] are not possible; accepted: whole numbers of at least 2"),
        ("model.backbone.bn_eps=-1", "bn_eps -1.0, bn_momentum 0.1 are not possible; accepted: over 0 to 1, and 0 to 1"),
        ("model.head.suppression.iou_threshold=.nan", "iou_threshold nan, score_threshold 0.01: accepted: from 0 to 1, and a number"),
        ("model.head.anchors.ratios=[1, -2]", "ratios (1.0, -2.0) of anchors is not possible; accepted: over 0 to 100"),
    ],
)
def test_values_out_of_range_end_in_one_sentence(flag: str, sentence: str, quick: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *quick, f"--{flag}"])
    assert stop.value.code == f"error: {sentence}"


def test_config_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemExit, match=r"odd\.yaml: is no config in UTF-8: .* invalid start byte"):
        main(["fit", f"--config={tmp_path / 'odd.yaml'}"])
