"""The command line of classification: runs, evaluation of files, predict, and checkpoints as backbones of other tasks."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import MobileNetV2
from heads import SSDLite
from tasks.classify.__main__ import main
from tasks.classify.data import Shapes
from tasks.classify.metrics import ClassCounts, evaluate
from tasks.classify.model import Classifier
from tasks.classify.module import ClassificationModule
from tasks.detect.model import Detector
from tasks.shapes import SHAPE_CLASSES

NAMES = tuple(sorted(SHAPE_CLASSES))
LOUD = "--trainer.enable_progress_bar=false"
QUICK = ["--trainer.fast_dev_run=1", LOUD]


@pytest.fixture(scope="module")
def data(shapes_root: Path) -> list[str]:
    """Flags for few shapes."""
    few = ["--data.train_images=10", "--data.val_images=10", "--data.batch_size=4", "--data.num_workers=0"]
    return ["--data=tasks.classify.data.Shapes", f"--data.root={shapes_root}", *few, "--data.size=[32,32]"]


@pytest.fixture(scope="module")
def run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the default config on few shapes."""
    runs = tmp_path_factory.mktemp("runs")
    steps = ["--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--trainer.check_val_every_n_epoch=1", LOUD]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        main(["fit", *data, f"--runs={runs}", *steps, "--trainer.precision=32-true"])
    return runs / "classify" / "mobilenet_v2_shapes"


@pytest.fixture(scope="module")
def best(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def few_shapes(root: Path, crop: float = 1.0) -> Shapes:
    data = Shapes(str(root), 10, 10, size=(32, 32), crop=crop)
    data.setup("validate")
    return data


@pytest.fixture(scope="module")
@torch.no_grad()
def alone(best: Path, shapes_root: Path) -> Path:
    """A file without a run around it, of a network that tells images apart: a few steps do not teach it to."""
    classifier = Classifier.from_checkpoint(best).train()
    torch.nn.init.normal_(classifier.head.linear.weight, generator=torch.Generator().manual_seed(0))
    for norm in (module for module in classifier.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    classifier(torch.stack([sample.image for sample in few_shapes(shapes_root).val_set]))
    classifier.crop = 0.6
    classifier.save(best.with_name("alone.pt"))
    return best.with_name("alone.pt").rename(best.parents[2] / "alone.pt")


def expected(file: Path, shapes_root: Path, crop: float) -> dict[str, float]:
    """Figures of a file without Lightning."""
    data, classifier = few_shapes(shapes_root, crop), Classifier.from_checkpoint(file)
    counts = ClassCounts(len(NAMES), 10)
    with torch.no_grad():
        for image, label, _ in data.val_set:
            counts.update(classifier(image[None]), torch.tensor([label]))
    return {f"val/{name}": value for name, value in evaluate(counts.compute(), NAMES).figures.items()}


def figures(folder: Path) -> dict[str, float]:
    return {name: value for name, value in json.loads((folder / "metrics.json").read_text()).items() if name.startswith("val/")}


def test_run_writes_its_results(run: Path) -> None:
    content = json.loads((run / "metrics.json").read_text())
    assert set(figures(run)) == {"val/top1", "val/top5", "val/mean_accuracy", "val/loss"}
    assert (content["images"], content["val/top5"], content["absent_classes"]) == (10, 1.0, [])
    assert {name: row["images"] for name, row in content["per_class"].items()} == dict.fromkeys(NAMES, 2)
    rows = list(csv.reader((run / "confusion.csv").read_text().splitlines()))
    counts = np.array([row[1:] for row in rows[1:]], dtype=int)
    assert (rows[0], [row[0] for row in rows[1:]]) == (["true / predicted", *NAMES], list(NAMES))
    assert content["val/top1"] == pytest.approx(np.trace(counts) / counts.sum(), abs=1e-6)
    for picture in ("predictions", "classes", "curves"):
        with Image.open(run / "pictures" / f"{picture}.png") as drawn:
            assert min(drawn.size) > 100
    history = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert {"val/top1", "val/loss", "train/loss"} <= set(history[0])
    assert float(history[-1]["val/top1"]) == pytest.approx(content["val/top1"], abs=1e-6)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_checkpoint_of_a_run_needs_no_more_flags(run: Path, best: Path, command: str) -> None:
    main([command, "--ckpt_path", str(best), LOUD])
    assert figures(run / command) == figures(run)
    assert (run / command / "confusion.csv").read_text() == (run / "confusion.csv").read_text()


def test_file_without_a_run_brings_its_size_and_crop(alone: Path, data: list[str], shapes_root: Path, tmp_path: Path) -> None:
    sizeless = [flag for flag in data if not flag.startswith("--data.size")]
    folder = tmp_path / "classify" / "classify" / "validate"
    main(["validate", f"--ckpt_path={alone}", *sizeless, f"--runs={tmp_path}", LOUD])
    of_file, of_flag = (expected(alone, shapes_root, crop) for crop in (0.6, 1.0))
    assert abs(of_file["val/loss"] - of_flag["val/loss"]) > 1e-3
    assert figures(folder) == pytest.approx(of_file, abs=1e-3)
    main(["validate", f"--ckpt_path={alone}", *sizeless, "--data.crop=1.0", f"--runs={tmp_path}", LOUD])
    assert figures(folder) == pytest.approx(of_flag, abs=1e-3)


def test_file_without_a_run_and_without_data_is_one_sentence(alone: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*alone\.pt, .* needs --data, such as tasks\.classify\.data\.ImageFolder$"):
        main(["validate", f"--ckpt_path={alone}", f"--runs={tmp_path}"])


def test_crop_of_the_data_is_that_of_the_checkpoint(best: Path) -> None:
    assert Classifier.from_checkpoint(best).crop == 1.0


def test_predict_writes_and_prints_the_likeliest_classes(
    alone: Path, tmp_path: Path, shapes_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (120, 80), "red").save(photos / "good.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 200, 3), dtype=np.uint8)).save(photos / "noise.png")
    (photos / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(SystemExit) as stopped:
        main(["predict", f"--ckpt_path={alone}", f"--images={photos}", f"--output={folder}"])
    assert stopped.value.code not in (0, None)
    assert "broken.png" in str(stopped.value)
    rows = list(csv.DictReader((folder / "classes.csv").read_text().splitlines()))
    assert [Path(row["file"]).name for row in rows] == ["good.jpg", "noise.png"]
    classifier, printed = Classifier.from_checkpoint(alone), capsys.readouterr().out
    for row in rows:
        probabilities = classifier.predict(row["file"])
        order = probabilities.argsort(descending=True)
        assert [row[f"class_{n}"] for n in range(1, 6)] == [NAMES[k] for k in order]
        found = [float(row[f"probability_{n}"]) for n in range(1, 6)]
        assert found == pytest.approx(probabilities[order].tolist(), abs=1e-4)
        assert f"{row['file']}: {row['class_1']} {found[0]:.2f}, {row['class_2']}" in printed.replace("\n", "")


def test_predict_names_as_many_classes_as_wanted(best: Path, run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    main(["predict", f"--ckpt_path={best}", f"--images={tmp_path / 'a.png'}", "--top=2", "--device=cpu"])
    header = (run / "predict" / "classes.csv").read_text().splitlines()[0]
    assert header == "file,class_1,probability_1,class_2,probability_2"


def test_checkpoint_is_a_backbone_of_other_tasks(best: Path) -> None:
    trained = Classifier.from_checkpoint(best).backbone
    backbone = MobileNetV2(["layer14"], width_mult=0.5, weights=str(best))
    assert list(backbone.state_dict()) == list(trained.state_dict())
    for name, value in trained.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value) or name.endswith("num_batches_tracked"), name


def test_mixing_by_flags(data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ClassificationModule] = []
    monkeypatch.setattr(ClassificationModule, "on_fit_start", lambda self: seen.append(self), raising=False)
    main(["fit", *data, *QUICK, f"--runs={tmp_path}", "--model.mixup=0.2", "--model.cutmix=1", "--model.label_smoothing=0.1"])
    (module,) = seen
    assert [type(kind).__name__ for kind in module.mix.kinds] == ["MixUp", "CutMix"]
    assert (module.label_smoothing, module.global_step) == (0.1, 1)


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_checkpoint_of_a_detector_is_one_sentence(command: str, data: list[str], tmp_path: Path) -> None:
    Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat",), (64, 64)).save(tmp_path / "detector.pt")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    flags = [f"--images={tmp_path / 'a.png'}"] if command == "predict" else [*data, f"--runs={tmp_path}"]
    with pytest.raises(SystemExit, match=r"^error: .*detector\.pt: holds no classifier; accepted: a run's checkpoint"):
        main([command, f"--ckpt_path={tmp_path / 'detector.pt'}", *flags])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fit", "--ckpt_path=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["validate"], "validate needs --ckpt_path"),
        (["predict", "--ckpt_path=nowhere.ckpt", "--images=nowhere"], "matches no image"),
        (["predict", "--ckpt_path=nowhere.ckpt", "--images=nowhere", "--top=0"], "top 0 is not possible"),
        (["fit", "--data=tasks.classify.data.ImageFolder", "--data.root=nowhere"], "nowhere/val: no such folder"),
        (["fit", "--data=tasks.classify.data.Torchvision", "--data.name=CIFAR11"], "did you mean CIFAR10"),
        (["fit", "--data.crop=2"], "crop 2.0 is not possible"),
        (["fit", "--data=tasks.detect.data.Shapes"], "tasks.detect.data.Shapes"),
        (["fit", "--model.mixup=-1"], "mixup -1.0"),
    ],
)
def test_user_errors_are_one_sentence(
    args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Shapes, "prepare_data", lambda self: None)
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code not in (0, None)
    assert said in f"{stopped.value}{capsys.readouterr().err}"
