"""The command line of segmentation: runs, evaluation of files, other losses and heads, predict."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backbones import MobileNetV2
from heads import LRASPP, DeepLabV3, SegmentationHead, SmpDecoder, SSDLite
from tasks.detect.model import Detector
from tasks.images import read_image
from tasks.pictures import voc_palette
from tasks.segment.__main__ import main
from tasks.segment.data import Shapes
from tasks.segment.metrics import ConfusionMatrix, evaluate
from tasks.segment.model import Segmenter
from tasks.segment.module import SegmentationModule
from tasks.shapes import SHAPE_CLASSES

# Of all tests here, for their masks are drawn.

NAMES = ("background", *SHAPE_CLASSES)
LOUD = "--trainer.enable_progress_bar=false"


@pytest.fixture(scope="module")
def data(shapes_root: Path) -> list[str]:
    """Flags for few shapes."""
    few = ["--data.train_images=8", "--data.val_images=4", "--data.batch_size=4", "--data.num_workers=0"]
    return ["--data=tasks.segment.data.Shapes", f"--data.root={shapes_root}", *few, "--data.size=[65,65]", "--data.crop_size=[65,65]"]


@pytest.fixture(scope="module")
def run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the default config on few shapes."""
    runs = tmp_path_factory.mktemp("runs")
    steps = ["--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--trainer.check_val_every_n_epoch=1", LOUD]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # inside pycocotools
        main(["fit", *data, f"--runs={runs}", *steps, "--trainer.precision=32-true"])
    return runs / "segment" / "deeplabv3_mobilenet_v2_shapes"


@pytest.fixture(scope="module")
def best(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
@torch.no_grad()
def varied(best: Path, shapes_root: Path) -> Segmenter:
    """The run's network with logits moved and stretched so that it predicts several classes: steps of seconds do not teach it any."""
    segmenter = Segmenter.from_checkpoint(best)
    last, image = segmenter.head.logits, torch.from_numpy(read_image(shapes_root / "v1-8-4-0/val/000000.jpg")).permute(2, 0, 1)[None]
    torch.nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(4))
    last.weight /= segmenter(image).std(dim=(0, 2, 3)).view(-1, 1, 1, 1)
    last.bias -= segmenter(image).mean(dim=(0, 2, 3))
    return segmenter


@pytest.fixture
def alone(varied: Segmenter, tmp_path: Path) -> Path:
    """A file without a run around it."""
    varied.save(tmp_path / "alone.pt")
    return tmp_path / "alone.pt"


def expected(file: Path, shapes_root: Path, size: tuple[int, int] = (65, 65)) -> dict[str, float]:
    """Figures of a file without Lightning."""
    data, segmenter = Shapes(str(shapes_root), 8, 4), Segmenter.from_checkpoint(file)
    data.setup("validate")
    segmenter.size = size
    matrix = ConfusionMatrix(len(NAMES), 4)
    for image, mask, _ in data.val_set:
        matrix.update(segmenter.segment([image]), [mask])
    confusion = matrix.compute().numpy()
    assert (confusion.sum(axis=0) > 0).sum() >= 3
    return {f"val/{name}": value for name, value in evaluate(confusion, NAMES).figures.items()}


def figures(folder: Path) -> dict[str, float]:
    return {name: value for name, value in json.loads((folder / "metrics.json").read_text()).items() if name.startswith("val/")}


def test_run_writes_its_results(run: Path) -> None:
    content = json.loads((run / "metrics.json").read_text())
    assert {"val/mIoU", "val/mIoU_present", "val/pixel_accuracy", "val/mean_accuracy", "val/void_share"} == set(figures(run))
    assert content["images"] == 4
    assert list(content["per_class"]) == list(NAMES)
    assert set(content["absent_classes"]) == {name for name, row in content["per_class"].items() if not row["pixels"]}
    rows = list(csv.reader((run / "confusion.csv").read_text().splitlines()))
    counts = np.array([row[1:] for row in rows[1:]], dtype=int)
    assert rows[0] == ["true / predicted", *NAMES]
    assert [row[0] for row in rows[1:]] == list(NAMES)
    assert counts.sum(axis=1).tolist() == [row["pixels"] for row in content["per_class"].values()]
    assert content["val/pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum(), abs=1e-6)
    for picture in ("predictions", "classes", "curves"):
        with Image.open(run / "pictures" / f"{picture}.png") as drawn:
            assert min(drawn.size) > 100
    for file in ("config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / file).is_file(), file
    history = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert {"val/mIoU", "val/pixel_accuracy", "train/loss"} <= set(history[0])
    assert float(history[-1]["val/mIoU"]) == pytest.approx(content["val/mIoU"], abs=1e-6)


def test_true_pixels_are_counted_at_the_size_of_the_images(run: Path, shapes_root: Path) -> None:
    content = json.loads((run / "metrics.json").read_text())
    pixels = sum(read_image(path)[..., 0].size for path in (shapes_root / "v1-8-4-0" / "val").iterdir())
    counted = sum(row["pixels"] for row in content["per_class"].values())
    assert counted == pytest.approx(pixels * (1 - content["val/void_share"]), rel=1e-5)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_checkpoint_of_a_run_needs_no_more_flags(run: Path, best: Path, command: str) -> None:
    main([command, "--ckpt_path", str(best), LOUD])
    assert figures(run / command) == figures(run)
    assert (run / command / "confusion.csv").read_text() == (run / "confusion.csv").read_text()


@pytest.fixture
def strides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gathers the output strides at which images are segmented."""
    seen: list[int] = []
    segment = Segmenter.segment

    def spy(self: Segmenter, images: list[Tensor]) -> list[Tensor]:
        seen.append(self.backbone.taps["layer11"].stride)
        return segment(self, images)

    monkeypatch.setattr(Segmenter, "segment", spy)
    return seen


def test_file_without_a_run_brings_its_own_settings(
    alone: Path, data: list[str], shapes_root: Path, tmp_path: Path, strides: list[int]
) -> None:
    main(["validate", "--ckpt_path", str(alone), *data, "--data.size=[65,65]", f"--runs={tmp_path}", LOUD])
    assert set(strides) == {8}
    assert figures(tmp_path / "segment" / "segment" / "validate") == pytest.approx(expected(alone, shapes_root), abs=1e-4)


def test_size_of_a_file_is_taken_unless_another_is_given(alone: Path, data: list[str], shapes_root: Path, tmp_path: Path) -> None:
    sizeless = [flag for flag in data if not flag.startswith(("--data.size", "--data.crop_size"))]
    main(["validate", f"--ckpt_path={alone}", *sizeless, f"--runs={tmp_path}", LOUD])
    of_file, of_flag = expected(alone, shapes_root), expected(alone, shapes_root, (97, 81))
    assert abs(of_file["val/mIoU"] - of_flag["val/mIoU"]) > 1e-3
    assert figures(tmp_path / "segment" / "segment" / "validate") == pytest.approx(of_file, abs=1e-4)
    main(["validate", f"--ckpt_path={alone}", *sizeless, "--data.size=[97,81]", f"--runs={tmp_path}", LOUD])
    assert figures(tmp_path / "segment" / "segment" / "validate") == pytest.approx(of_flag, abs=1e-4)


def test_flags_win_over_the_file(alone: Path, data: list[str], tmp_path: Path, strides: list[int]) -> None:
    flags = ["--model.backbone.output_stride", "16", "--model.flip", "true", "--model.scales=[0.5,1.0]"]
    main(["validate", "--ckpt_path", str(alone), *data, *flags, f"--runs={tmp_path}", LOUD])
    assert set(strides) == {16}


def test_predict_writes_masks_overlays_and_shares(varied: Segmenter, run: Path, tmp_path: Path) -> None:
    varied.save(run / "checkpoints" / "varied.ckpt")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (120, 80), "red").save(photos / "good.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 200, 3), dtype=np.uint8)).save(photos / "noise.png")
    (photos / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(SystemExit) as stopped:
        main(["predict", f"--ckpt_path={run / 'checkpoints/varied.ckpt'}", f"--images={photos}", "--flip=true", "--scales=[0.5,1.0]"])
    assert stopped.value.code not in (0, None)
    assert "broken.png" in str(stopped.value)
    folder = run / "predict"
    rows = list(csv.DictReader((folder / "shares.csv").read_text().splitlines()))
    assert [Path(row["file"]).name for row in rows] == ["good.jpg", "noise.png"]
    for row, size in zip(rows, [(120, 80), (200, 30)], strict=True):
        assert sum(float(row[name]) for name in NAMES) == pytest.approx(1, abs=1e-3)
        with Image.open(folder / row["mask"]) as mask:
            assert (mask.mode, mask.size) == ("P", size)
            assert mask.getpalette()[:768] == voc_palette().flatten().tolist()[: len(mask.getpalette())]
            values = np.array(mask)
        assert 0 < values.max() < len(NAMES)
        for value, name in enumerate(NAMES):
            assert float(row[name]) == pytest.approx((values == value).mean(), abs=1e-4)
        with Image.open(folder / "overlays" / Path(row["mask"]).name) as picture:
            assert picture.width == size[0]
            assert picture.height > size[1]  # a legend below


def test_predict_goes_to_the_folder_that_is_asked_for(alone: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    flags = ["--sliding=true", "--device=cpu"]
    main(["predict", f"--ckpt_path={alone}", f"--images={tmp_path / 'a.png'}", f"--output={tmp_path / 'out'}", *flags])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"masks", "overlays", "shares.csv"}
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert np.array_equal(np.array(mask), Segmenter.from_checkpoint(alone).predict(tmp_path / "a.png").numpy())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[SegmentationModule]:
    """Gathers the modules that are trained."""
    seen: list[SegmentationModule] = []
    monkeypatch.setattr(SegmentationModule, "on_fit_start", lambda self: seen.append(self), raising=False)
    return seen


QUICK = ["--trainer.fast_dev_run=1", LOUD]


def test_run_starts_from_the_weights_of_another(best: Path, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Tensor] = {}

    def remember(self: SegmentationModule) -> None:
        seen.update({name: value.clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(SegmentationModule, "on_fit_start", remember, raising=False)
    main(["fit", *data, *QUICK, f"--runs={tmp_path}", "--model.weights", str(best)])
    wanted = Segmenter.from_checkpoint(best).state_dict()
    assert list(seen) == list(wanted)
    assert all(torch.equal(value, seen[name]) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("taps", "flags", "head"),
    [
        ("[layer7, layer18]", ["--model.head", "heads.LRASPP", "--model.head.channels", "16"], LRASPP),
        (
            "[layer2, layer4, layer7, layer14, layer18]",
            ["--model.head", "heads.SmpDecoder", "--model.head.settings", '{"decoder_channels": [16, 16, 8, 8, 4]}'],
            SmpDecoder,
        ),
        ("[layer18]", ["--model.head", "heads.DeepLabV3", "--model.head.decoder=false", "--model.head.atrous_rates=[6]"], DeepLabV3),
    ],
    ids=["lraspp", "smp", "atrous"],
)
def test_heads_by_class_path(
    taps: str, flags: list[str], head: type[SegmentationHead], data: list[str], tmp_path: Path, started: list[SegmentationModule]
) -> None:
    stride = ["--model.backbone.output_stride", "32"] if head is SmpDecoder else []
    main(["fit", *data, *QUICK, f"--runs={tmp_path}", "--model.backbone.taps", taps, *stride, *flags])
    (module,) = started
    assert type(module.model.head) is head
    assert module.global_step == 1


def test_loss_by_class_path(data: list[str], tmp_path: Path, started: list[SegmentationModule]) -> None:
    loss = ["--model.loss", "segmentation_models_pytorch.losses.DiceLoss", "--model.loss.mode", "multiclass"]
    main(["fit", *data, *QUICK, f"--runs={tmp_path}", *loss, "--model.loss.ignore_index", "255"])
    (module,) = started
    assert type(module.loss).__module__.startswith("segmentation_models_pytorch")
    assert (module.loss.mode, module.loss.ignore_index) == ("multiclass", 255)
    assert module.global_step == 1


def test_weights_of_classes_by_flag(data: list[str], tmp_path: Path, started: list[SegmentationModule]) -> None:
    loss = ["--model.loss=heads.CrossEntropyLoss", "--model.loss.class_weights=[0.5,1,1,1,1,1]"]
    main(["fit", *data, *QUICK, f"--runs={tmp_path}", *loss])
    assert started[0].loss.class_weights.tolist() == [0.5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_checkpoint_of_a_detector_is_one_sentence(command: str, data: list[str], tmp_path: Path) -> None:
    Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat",), (64, 64)).save(tmp_path / "detector.pt")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    flags = [f"--images={tmp_path / 'a.png'}"] if command == "predict" else [*data, f"--runs={tmp_path}"]
    with pytest.raises(
        SystemExit, match=r"^error: .*detector\.pt: holds no segmenter; accepted: a run's checkpoint, or a file of Segmenter"
    ):
        main([command, f"--ckpt_path={tmp_path / 'detector.pt'}", *flags])


def test_weights_of_a_detector_are_one_sentence(data: list[str], tmp_path: Path) -> None:
    Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat",), (64, 64)).save(tmp_path / "detector.pt")
    with pytest.raises(SystemExit, match=r"^error: weights .*detector\.pt: \d+ of \d+ tensors do not fit"):
        main(["fit", *data, *QUICK, f"--runs={tmp_path}", f"--model.weights={tmp_path / 'detector.pt'}"])


def test_checkpoint_of_another_segmenter_is_refused(best: Path) -> None:
    with pytest.raises(SystemExit, match="another architecture"):
        main(["validate", f"--ckpt_path={best}", "--model.backbone.width_mult=0.75", LOUD])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fit", "--ckpt_path=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["validate"], "validate needs --ckpt_path"),
        (["predict", "--ckpt_path=nowhere.ckpt", "--images=nowhere"], "matches no image"),
        (["fit", "--data=tasks.segment.data.Voc", "--data.root=nowhere"], "Segmentation/val.txt: no such file"),
        (["fit", "--data=tasks.segment.data.Voc", "--data.val_splits=[val]"], "accepted: year/split"),
        (["fit", "--data.crop_size=[0,65]"], "crop_size"),
        (["fit", "--model.scales=[0]"], "scales [0.0] are not possible"),
        (["fit", "--model.head=heads.SSDLite"], "SSDLite"),
        (["fit", "--data=tasks.detect.data.Shapes"], "tasks.detect.data.Shapes"),
        (["fit", "--model.backbone.taps=[layer18]", "--model.head.decoder=true"], "the decoder needs a first tap of stride 4"),
        (["fit", "--model.loss=heads.Nothing"], "Nothing"),
    ],
)
def test_user_errors_are_one_sentence(
    args: list[str], said: str, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code not in (0, None)
    assert said in f"{stopped.value}{capsys.readouterr().err}"


def test_file_without_a_run_and_without_data_is_one_sentence(alone: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*--data") as stopped:
        main(["validate", f"--ckpt_path={alone}", f"--runs={tmp_path}"])
    assert "\n" not in str(stopped.value)


def test_file_without_state_of_training_cannot_be_continued(best: Path, data: list[str], tmp_path: Path) -> None:
    Segmenter.from_checkpoint(best).save(tmp_path / "alone.pt")
    with pytest.raises(SystemExit, match=r"^error: .*alone\.pt.*--model\.weights"):
        main(["fit", *data, f"--ckpt_path={tmp_path / 'alone.pt'}", f"--runs={tmp_path}", "--trainer.max_epochs=1", LOUD])
