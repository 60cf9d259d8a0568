"""Files that TensorFlow and Keras write: the networks in them give what they gave there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.classify.model import Classifier
from tasks.detect.model import Detector
from tasks.labels import COCO_IDS, VOC_MASK_CLASSES, coco_classes, imagenet_classes
from tasks.segment.model import Segmenter
from tests.tasks.foreign import assert_equal, converted, of_tensorflow, pixels
from tests.tasks.tensorflow_graph import Graph, train_and_save

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow")


def channels_last(images: Tensor) -> np.ndarray:
    return of_tensorflow(images).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("width", "averaged"), [(1.0, True), (0.35, False), (1.4, False)])
@torch.no_grad()
def test_slims_classifier(tf: Any, width: float, averaged: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pixels(97, 64)
    (expected,) = train_and_save(tf, channels_last(images), Graph(tf, width).classifier, tmp_path / "model.ckpt", averaged)
    for name in ("model.ckpt", "model.ckpt.index"):
        model = converted(tmp_path / name, Classifier)
        assert_equal(model(images), torch.from_numpy(expected))
    assert model.class_names == imagenet_classes(1001)
    told = capsys.readouterr().out
    assert "262 tensors used, " in told
    assert "0 missing" in told
    assert {"MobilenetV2/Conv/weights/Momentum", "global_step"} <= set(told.splitlines()[1].removeprefix("not used: ").split(", "))


@torch.no_grad()
def test_deeplab(tf: Any, tmp_path: Path) -> None:
    images = pixels(97, 65)
    network = Graph(tf, output_stride=16).deeplab
    (expected,) = train_and_save(tf, channels_last(images), network, tmp_path / "model.ckpt-30000", True)
    model = converted(tmp_path / "model.ckpt-30000", Segmenter)
    cells = model.head(model.backbone(model.normalise(images)), (97, 65))
    assert_equal(cells, torch.from_numpy(expected).permute(0, 3, 1, 2))
    assert model.class_names == VOC_MASK_CLASSES


@torch.no_grad()
def test_ssdlite(tf: Any, tmp_path: Path) -> None:
    images = pixels(300, 300)
    boxes, scores = train_and_save(tf, channels_last(images), Graph(tf).ssdlite, tmp_path / "model.ckpt", True)
    model = converted(tmp_path / "model.ckpt", Detector)
    found = model(images)
    assert_equal(found.class_logits, torch.from_numpy(scores[..., [0, *COCO_IDS]]))
    assert_equal(found.box_deltas, torch.from_numpy(boxes[..., [1, 0, 3, 2]]))
    assert model.class_names == coco_classes()


@pytest.mark.parametrize("damage", ["cut", "alone"])
def test_damaged_checkpoint(tf: Any, damage: str, tmp_path: Path) -> None:
    train_and_save(tf, channels_last(pixels(32, 32)), Graph(tf, 0.35).classifier, tmp_path / "model.ckpt", False)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = data.read_bytes()
    data.unlink()
    if damage == "cut":
        data.write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"model\.ckpt: cannot be read as weights") as raised:
        converted(tmp_path / "model.ckpt", Classifier)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*converted*"))


def keras_network(tf: Any, width: float, classes: int = 1000, size: tuple[int, int] = (97, 64)) -> Any:
    """Keras's own MobileNetV2 with random statistics."""
    tf.keras.utils.set_random_seed(2)
    network = tf.keras.applications.MobileNetV2((*size, 3), alpha=width, weights=None, classes=classes, classifier_activation=None)
    randomise(network)
    return network


def randomise(network: Any) -> None:
    """Gives batch norms statistics, scales and shifts of their own, and convolutions weights that keep the scale."""
    rng = np.random.default_rng(0)
    for layer in network.layers:
        values = layer.get_weights()
        if len(values) == 4:
            spans = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 1.5))
            layer.set_weights([rng.uniform(*span, value.shape) for span, value in zip(spans, values, strict=True)])
        elif values:
            fan_in = np.prod(values[0].shape[: 2 if "depthwise" in layer.name else -1])
            layer.set_weights([rng.normal(0, (2 / fan_in) ** 0.5, values[0].shape), *(rng.normal(size=v.shape) for v in values[1:])])


@pytest.mark.parametrize(
    ("width", "name"), [(1.0, "keras.weights.h5"), (0.35, "keras.weights.h5"), (0.5, "keras.h5"), (1.4, "keras.keras")]
)
@torch.no_grad()
def test_keras(tf: Any, width: float, name: str, tmp_path: Path) -> None:
    network = keras_network(tf, width)
    (network.save_weights if name.endswith("weights.h5") else network.save)(tmp_path / name)
    images = pixels(97, 64)
    model = converted(tmp_path / name, Classifier)
    assert_equal(model(images), torch.from_numpy(network(channels_last(images), training=False).numpy()))
    assert model.class_names == imagenet_classes(1000)


@pytest.mark.parametrize("width", [1.0, 0.25])
@torch.no_grad()
def test_keras_mobilenet_v1(tf: Any, width: float, tmp_path: Path) -> None:
    """Keras pads its strided layers by (0, 1), which is SAME on even sizes only."""
    tf.keras.utils.set_random_seed(2)
    network = tf.keras.applications.MobileNet((96, 64, 3), alpha=width, weights=None, dropout=0.0, classifier_activation=None)
    randomise(network)
    network.save_weights(tmp_path / "v1.weights.h5")
    images = pixels(96, 64)
    model = converted(tmp_path / "v1.weights.h5", Classifier)
    assert_equal(model(images), torch.from_numpy(network(channels_last(images), training=False).numpy()))


@torch.no_grad()
def test_tf_keras_names(tf: Any, tmp_path: Path) -> None:
    """Keras 2 wrote `layer/layer/kernel:0`, as the published files have it."""
    import h5py

    network, images = keras_network(tf, 0.35), pixels(97, 64)
    with h5py.File(tmp_path / "keras2.h5", "w") as file:
        for layer in network.layers:
            for weight in layer.weights:
                file[f"{layer.name}/{layer.name}/{weight.name}:0"] = weight.numpy()
    model = converted(tmp_path / "keras2.h5", Classifier)
    assert_equal(model(images), torch.from_numpy(network(channels_last(images), training=False).numpy()))


def lite(tf: Any, network: Any, kind: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 97, 64, 3)).astype(np.float32)
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


@pytest.mark.parametrize(("kind", "within"), [("float32", 1e-4), ("float16", 2e-2), ("dynamic", None), ("int8", None)])
@torch.no_grad()
def test_tflite_of_keras(tf: Any, kind: str, within: float | None, tmp_path: Path) -> None:
    network, images = keras_network(tf, 0.35), pixels(97, 64)
    (tmp_path / "net.tflite").write_bytes(lite(tf, network, kind))
    model = converted(tmp_path / "net.tflite", Classifier)
    expected = torch.from_numpy(network(channels_last(images), training=False).numpy())
    if within is not None:
        assert_equal(model(images), expected, within)
    network.save_weights(tmp_path / "net.weights.h5")
    exact = converted(tmp_path / "net.weights.h5", Classifier)
    assert torch.corrcoef(torch.stack([model(images).flatten(), exact(images).flatten()]))[0, 1] > 0.9
    # Each weight is within half a step of 127 (int8) of its channel's largest.
    last, other = model.head.linear.weight, exact.head.linear.weight
    assert (last - other).abs().max() <= other.abs().max() / (127 if within is None else 1000)


@torch.no_grad()
def test_tflite_of_ssdlite(tf: Any, tmp_path: Path) -> None:
    v1, images = tf.compat.v1, pixels(300, 300)
    with v1.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder(tf.float32, (1, 300, 300, 3), "input")
        outputs = Graph(tf).ssdlite(given)
        session.run(v1.global_variables_initializer())
        boxes, scores = session.run(outputs, {given: channels_last(images)[:1]})
        content = v1.lite.TFLiteConverter.from_session(session, [given], list(outputs)).convert()
    (tmp_path / "ssdlite.tflite").write_bytes(content)
    found = converted(tmp_path / "ssdlite.tflite", Detector)(images[:1])
    assert_equal(found.class_logits, torch.from_numpy(scores[..., [0, *COCO_IDS]]))
    assert_equal(found.box_deltas, torch.from_numpy(boxes[..., [1, 0, 3, 2]]))
