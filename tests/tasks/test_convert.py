"""Published weights of others: equal results, and what is refused."""

import json
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tasks.convert
from backbones import MobileNetV2
from backbones.tensorflow import body_scopes
from heads import DeepLabV3
from tasks.convert import DEEPLAB_SCOPES, convert
from tasks.labels import VOC_MASK_CLASSES
from tasks.segment.__main__ import main
from tasks.segment.model import Segmenter

Arrays = dict[str, np.ndarray]


def published() -> Segmenter:
    """DeepLab's network with random weights and statistics."""
    backbone = MobileNetV2(["layer18"], output_stride=16, padding="same", bn_eps=1e-3)
    head = partial(DeepLabV3, padding="same", align_corners=True)
    segmenter = Segmenter(backbone, head, VOC_MASK_CLASSES, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    for layer in segmenter.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -0.5, 0.5), (layer.running_mean, -0.5, 0.5)):
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    nn.init.normal_(segmenter.head.logits.bias)
    nn.init.normal_(segmenter.head.logits.weight, std=0.1)
    return segmenter.eval()


@torch.no_grad()
def fold(segmenter: Segmenter) -> Arrays:
    """Multiplies batch norms into the convolutions before them, under TensorFlow's names."""
    layers = [m for part in (segmenter.backbone, segmenter.head) for m in part.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    scopes = iter([*body_scopes(18), *DEEPLAB_SCOPES])
    found = {}
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            continue
        weights, biases = layer.weight, layer.bias
        if isinstance(following, nn.BatchNorm2d):
            gain = following.weight / (following.running_var + following.eps).sqrt()
            weights, biases = weights * gain.view(-1, 1, 1, 1), following.bias - following.running_mean * gain
        scope = next(scopes)
        found |= {f"{scope}/weights": weights.numpy().copy(), f"{scope}/biases": biases.numpy().copy()}
    assert next(scopes, None) is None
    return found


@pytest.fixture(scope="module")
def original() -> Segmenter:
    return published()


@pytest.fixture(scope="module")
def arrays(original: Segmenter) -> Arrays:
    return fold(original)


@torch.no_grad()
def test_converted_network_gives_equal_logits(
    original: Segmenter, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "folded.npz", **arrays)
    convert(str(tmp_path / "folded.npz"), str(tmp_path / "converted.pt"))
    assert capsys.readouterr().out == f"110 tensors used, 0 not; written to {tmp_path / 'converted.pt'}\n"
    converted = Segmenter.from_checkpoint(tmp_path / "converted.pt")
    images = torch.randint(256, (2, 3, 65, 97), dtype=torch.uint8)
    expected = original(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(converted(images), expected, rtol=1e-4, atol=1e-4)
    assert (converted.class_names, converted.size) == (VOC_MASK_CLASSES, (513, 513))
    assert converted.mean.flatten().tolist() == converted.std.flatten().tolist() == [0.5] * 3
    assert converted.head.align_corners


def test_tensors_that_are_not_used_are_named(arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "folded.npz", **arrays, global_step=np.ones(1), other=np.ones(2))
    convert(str(tmp_path / "folded.npz"), str(tmp_path / "converted.pt"))
    assert "110 tensors used, 2 not: global_step, other; written to" in capsys.readouterr().out


def without(name: str) -> Callable[[Path, Arrays], None]:
    return lambda path, arrays: np.savez(path, **{key: value for key, value in arrays.items() if key != name})


def changed(name: str, value: np.ndarray) -> Callable[[Path, Arrays], None]:
    return lambda path, arrays: np.savez(path, **(arrays | {name: value}))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (without("concat_projection/biases"), "has no tensor concat_projection/biases"),
        (without("MobilenetV2/Conv/weights"), "has no tensor MobilenetV2/Conv/weights"),
        (without("logits/semantic/weights"), r"has no tensor logits/semantic/weights; accepted: deeplabv3_mnv2_pascal with folded batch"),
        (changed("aspp0/weights", np.ones((256, 320, 3, 3))), r"aspp0/weights has shape \(256, 320, 3, 3\); wanted \(256, 320, 1, 1\)"),
        (changed("logits/semantic/weights", np.ones((2, 256, 1, 1))), r"has shape \(2, 256, 1, 1\); wanted \(21, 256, 1, 1\)"),
        (changed("aspp0/biases", np.array([{}])), "cannot be read as an .npz of plain arrays"),
        (lambda path, _: path.write_bytes(b"nothing"), "cannot be read as an .npz of plain arrays"),
        (lambda path, _: path.write_bytes(b""), "cannot be read as an .npz of plain arrays"),
        (lambda path, _: None, "no such weights file"),
    ],
    ids=["bias", "first", "last", "shape", "classes", "pickled", "bytes", "empty", "absent"],
)
def test_other_files_are_one_sentence(write: Callable[[Path, Arrays], object], message: str, arrays: Arrays, tmp_path: Path) -> None:
    write(tmp_path / "folded.npz", arrays)
    with pytest.raises(ValueError, match=rf"folded\.npz: .*{message}") as raised:
        convert(str(tmp_path / "folded.npz"), str(tmp_path / "converted.pt"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "converted.pt").exists()


def test_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"one\.npy: cannot be read as an \.npz of plain arrays"):
        convert(str(tmp_path / "one.npy"), str(tmp_path / "converted.pt"))


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, args)])
    runpy.run_path(tasks.convert.__file__, run_name="__main__")


def test_command_line(arrays: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "folded.npz", **arrays)
    run(monkeypatch, tmp_path / "folded.npz", tmp_path / "converted.pt")
    assert Segmenter.from_checkpoint(tmp_path / "converted.pt").class_names == VOC_MASK_CLASSES


def test_user_error_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*absent\.npz: no such weights file$"):
        run(monkeypatch, tmp_path / "absent.npz", tmp_path / "converted.pt")


def test_folder_of_the_result_is_made(arrays: Arrays, tmp_path: Path) -> None:
    np.savez(tmp_path / "folded.npz", **arrays)
    convert(str(tmp_path / "folded.npz"), str(tmp_path / "new/folder/converted.pt"))
    assert (tmp_path / "new/folder/converted.pt").is_file()


@pytest.fixture(scope="module")
def google(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Google's DeepLab, converted."""
    target = tmp_path_factory.mktemp("google") / "deeplab.pt"
    convert(str(shared / "weights/voc/deeplabv3_mobilenet_v2_trainval_folded.npz"), str(target))
    return target


def test_every_tensor_of_googles_file_is_used(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(str(shared / "weights/voc/deeplabv3_mobilenet_v2_trainval_folded.npz"), str(tmp_path / "deeplab.pt"))
    assert "110 tensors used, 0 not;" in capsys.readouterr().out


def test_other_network_of_google_is_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no tensor logits/semantic/weights"):
        convert(str(shared / "weights/coco/ssdlite_mobilenet_v2_21of91_folded.npz"), str(tmp_path / "converted.pt"))


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


def test_googles_network_finds_the_bird(google: Path, shared: Path) -> None:
    photos = shared / "weights/photos"
    found = Segmenter.from_checkpoint(google).predict(photos / "bird_segmentation.bmp").numpy()
    mask = np.array(Image.open(photos / "bird_segmentation_mask.bmp"))  # 3 is the bird, 1 and 2 lie on its border
    assert overlap(found == VOC_MASK_CLASSES.index("bird"), mask > 0) > 0.9
    assert set(np.unique(found)) == {0, VOC_MASK_CLASSES.index("bird")}


def test_googles_network_finds_the_dog(google: Path, shared: Path) -> None:
    photos = shared / "weights/photos"
    mask = np.array(Image.open(photos / "dog_segmentation_mask.bmp"))  # 0 is the dog, 1 the background, 2 the border (void)
    found = Segmenter.from_checkpoint(google).predict(photos / "dog_segmentation.bmp").numpy()
    assert overlap((found == VOC_MASK_CLASSES.index("dog")) & (mask != 2), mask == 0) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "expected"), [([], 0.7480), (["--model.backbone.output_stride", "8"], 0.7638)], ids=["16", "8"])
def test_googles_network_reaches_its_known_score(google: Path, shared: Path, tmp_path: Path, flags: list[str], expected: float) -> None:
    data = ["--data", "tasks.segment.data.Voc", "--data.root", str(shared / "data/VOCdevkit"), "--data.num_workers", "2"]
    main(["validate", "--ckpt_path", str(google), *data, "--data.batch_size", "8", *flags, "--runs", str(tmp_path)])
    figures = json.loads(next(tmp_path.rglob("metrics.json")).read_text())
    assert figures["images"] == 223
    assert figures["val/mIoU_present"] == pytest.approx(expected, abs=0.002)
