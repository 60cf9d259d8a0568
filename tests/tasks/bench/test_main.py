"""The command line, and races whose candidates must find the same."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import MobileNetV2
from heads import SSDLite
from tasks.bench.__main__ import main
from tasks.bench.parts import infer, postprocess
from tasks.bench.race import Race
from tasks.detect.model import Detector
from tasks.export.graphs import DetectionGraph
from tasks.images import find_images, read_image
from tests.backbones.contract import randomise


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A detector whose scores are spread, unlike those of an untrained one."""
    torch.manual_seed(0)
    model = Detector(MobileNetV2(width_mult=0.35), partial(SSDLite, anchors="torchvision"), list("abcdef"), (96, 96))
    randomise(model)
    model.save(tmp_path / "detector.safetensors")
    return tmp_path / "detector.safetensors"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(draw.integers(0, 255, (80, 120, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def test_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "--scale=0.004", "--repeats=1", f"--output={tmp_path}"])
    shown = capsys.readouterr().out
    assert "COCO's figures, 20 images" in shown
    assert "Equal: all twelve figures" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"evaluate.md", "evaluate.json"}


def test_postprocess(detector: Path, images: Path) -> None:
    race = next(postprocess.races(str(detector), str(images)))
    assert race.amount == 3
    assert race.equal == "900 detections in 3 images: labels, scores and boxes"


def test_results_that_differ_are_refused(detector: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        SSDLite, "postprocess", lambda self, *args: [found._replace(boxes=found.boxes + 1) for found in original(self, *args)]
    )
    with pytest.raises(ValueError, match=r"detections of torchvision and heads\.nms are up to 1\.000 pixels or thousandths apart$"):
        next(postprocess.races(str(detector), str(images)))


original = SSDLite.postprocess


@pytest.mark.slow
def test_forms_of_inference(detector: Path, images: Path, tmp_path: Path) -> None:
    plain = Detector.from_checkpoint(detector)
    typical = [read_image(image) for image in find_images([str(images)])]
    forms = infer._forms(plain, DetectionGraph(plain), typical, tmp_path / "detector")
    assert list(forms)[-2:] == ["ONNX Runtime int8", "OpenVINO int8"]
    pixels = torch.from_numpy(typical[0][:80, :96]).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    pixels = torch.nn.functional.pad(pixels, (0, 0, 8, 8))
    with torch.inference_mode():
        found = {name: form.model(pixels).class_logits.float() for name, form in forms.items()}
    for name, logits in found.items():
        apart = float((logits - found["eager"]).abs().max() / found["eager"].abs().max())
        assert apart < (0.3 if forms[name].rounded else 1e-4), f"{name} is apart by {apart}"
        assert apart > 1e-4 or not name.endswith("int8")


@pytest.mark.slow
def test_train() -> None:
    from tasks.bench.parts import train

    found: list[Race] = list(train.races(64, 4, 65, 2))
    assert [list(race.candidates)[-2:] for race in found] == [list(train.OURS)] * 2


@pytest.mark.slow
def test_epochs(shared: Path) -> None:
    from tasks.bench.epochs import epochs

    race = epochs(str(shared / "data/coco/val"), str(shared / "data/coco/annotations/instances_val.json"), (64, 64), 3, 7)
    assert race.amount == 6
    for call in race.candidates.values():
        call()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "--repeats=0"], "error: repeats 0, threads None: accepted: at least 1"),
        (["postprocess", "--detector=none.ckpt", "--images=."], "none.ckpt"),
    ],
)
def test_what_cannot_be_run_is_said(args: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert message in str(ended.value.code)


def test_files_to_results_one_by_one_and_ahead(detector: Path, images: Path) -> None:
    own = {"eager": infer.Own(Detector.from_checkpoint(detector))}
    races = infer._results("JPEG to boxes", find_images([str(images)]), {"theirs": lambda path: path.stem}, own, "theirs", "all")
    singly, together = races
    for race in (singly, together):
        assert race.amount == 3
        assert list(race.candidates) == ["theirs", "eager"]
        race.prepare("eager")
    assert singly.candidates["theirs"]() == ["0", "1", "2"]
    assert together.candidates["theirs"]() == [["0", "1", "2"]]
    one, (other,) = singly.candidates["eager"](), together.candidates["eager"]()
    assert len(one) == len(other) == 3
    assert all(torch.equal(a, b) for found, again in zip(one, other, strict=True) for a, b in zip(found, again, strict=True))
