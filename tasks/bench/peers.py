"""Other networks of the same kind, each with its own way from a file to a result. Their weights are random, which costs the same."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Scores of a photo that pass torchvision's threshold of .001: of Google's trained SSDLite, on COCO's photos and of 20 classes, so many do,
# which is an eighth. Of an untrained network all or none would.
CANDIDATES, SHARE = 5000, 8
RED_GREEN_BLUE = (0.5, 0.5, 0.5)


class Peer(NamedTuple):
    """A network of another project.

    Attributes:
        network: from (B, 3, H, W) normalised images to raw outputs at the network's own resolution.
        result: from an image file to boxes, or to a map of classes at the image's size.
    """

    network: Callable[[Tensor], Any]
    result: Callable[[Path], Any]


def torchvision_ssdlite(classes: int, size: int) -> Peer:
    """SSDLite320 on MobileNetV3, of `classes` foreground classes."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights, ssdlite320_mobilenet_v3_large

    if size != 320:
        raise ValueError(f"size {size} is not possible beside torchvision's SSDLite320; accepted: 320")
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1).eval()
    last = [level[1] for level in model.head.classification_head.module_list]
    for layer in last:
        torch.nn.init.normal_(layer.bias)  # scores that differ
    with torch.no_grad():
        logits = model.head(list(model.backbone(torch.zeros(1, 3, size, size)).values()))["cls_logits"][..., 1:]
        # Beside a background that outweighs the classes, a score is the exponential of how far its logit lies below the background's.
        background = logits.flatten().topk(min(CANDIDATES, logits.numel() // SHARE)).values[-1] - math.log(model.score_thresh)
        for layer in last:
            layer.bias.view(-1, classes + 1)[:, 0] = background
    prepare = SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.transforms()

    def result(path: Path) -> Any:
        return model([prepare(decode_image(str(path), mode=ImageReadMode.RGB))])

    return Peer(lambda images: model.head(list(model.backbone(images).values())), result)


def _torchvision_segmentation(model: Any, size: int) -> Peer:
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional as V

    model.eval()

    def result(path: Path) -> Tensor:
        image = decode_image(str(path), mode=ImageReadMode.RGB)
        pixels = V.normalize(V.to_dtype(V.resize(image, [size, size]), torch.float32, scale=True), *[list(RED_GREEN_BLUE)] * 2)
        found: Tensor = F.interpolate(model(pixels[None])["out"], image.shape[1:], mode="bilinear").argmax(dim=1)
        return found

    def network(images: Tensor) -> Any:
        features = model.backbone(images)
        return model.classifier(features if "low" in features else features["out"])

    return Peer(network, result)


def torchvision_lraspp(classes: int, size: int) -> Peer:
    """LR-ASPP on MobileNetV3."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return _torchvision_segmentation(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes), size)


def torchvision_deeplab(classes: int, size: int) -> Peer:
    """DeepLabv3 on MobileNetV3."""
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return _torchvision_segmentation(deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes), size)


def smp_deeplab(classes: int, size: int) -> Peer:
    """DeepLabv3+ on MobileNetV2, of segmentation-models-pytorch; it takes multiples of 16."""
    import segmentation_models_pytorch as smp
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional as V

    model = smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=classes).eval()
    side = size // 16 * 16

    def result(path: Path) -> Tensor:
        image = decode_image(str(path), mode=ImageReadMode.RGB)
        pixels = V.normalize(V.to_dtype(V.resize(image, [side, side]), torch.float32, scale=True), *[list(RED_GREEN_BLUE)] * 2)
        found: Tensor = F.interpolate(model(pixels[None]), image.shape[1:], mode="bilinear").argmax(dim=1)
        return found

    return Peer(lambda images: model(images[:, :, :side, :side]), result)


def transformers_deeplab(classes: int, size: int) -> Peer:
    """DeepLabv3 with the reduced head on MobileNetV2, of transformers; output stride 16."""
    from PIL import Image
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation, MobileNetV2ImageProcessor

    config = cast(Any, MobileNetV2Config)(output_stride=16, num_labels=classes, image_size=size)
    model = cast(Any, MobileNetV2ForSemanticSegmentation)(config).eval()
    colours = {"image_mean": list(RED_GREEN_BLUE), "image_std": list(RED_GREEN_BLUE)}
    processor: Any = cast(Any, MobileNetV2ImageProcessor)(size={"height": size, "width": size}, do_center_crop=False, **colours)

    def result(path: Path) -> Tensor:
        with Image.open(path) as file:
            image = file.convert("RGB")
        outputs = model(**processor(image, return_tensors="pt"))
        found: Tensor = processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])[0]
        return found

    return Peer(lambda images: model(images).logits, result)


def tensorflow_lite(model: Path, threads: int) -> Callable[[Path], Any]:
    """From a file to a map of classes at the image's size, by a .tflite segmenter that takes uint8 or int8 pixels.

    Raises:
        ImportError: neither ai_edge_litert nor TensorFlow is installed.
        ValueError: it takes other pixels.
    """
    import importlib

    cv2: Any = importlib.import_module("cv2")  # whose types forbid what it takes
    interpreter = _interpreter()(model_path=str(model), num_threads=threads)
    interpreter.allocate_tensors()
    (inlet, *_), (outlet, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    if inlet["dtype"] not in (np.uint8, np.int8):
        raise ValueError(f"{model}: takes {inlet['dtype'].__name__}; accepted: a model of uint8 or int8 pixels")
    height, width = inlet["shape"][1:3]

    def result(path: Path) -> Any:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        pixels = cv2.cvtColor(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)
        interpreter.set_tensor(inlet["index"], pixels[None] if inlet["dtype"] == np.uint8 else (pixels ^ 128).view(np.int8)[None])
        interpreter.invoke()
        found = interpreter.get_tensor(outlet["index"])[0]
        if found.ndim == 3:  # scores, not classes
            found = cv2.resize(found.astype(np.float32), (width, height)).argmax(axis=2)
        return cv2.resize(found.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)

    return result


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter
    return Interpreter


DETECTORS: Mapping[str, Callable[[int, int], Peer]] = {"torchvision SSDLite320-MobileNetV3": torchvision_ssdlite}
SEGMENTERS: Mapping[str, Callable[[int, int], Peer]] = {
    "transformers MobileNetV2 DeepLabv3": transformers_deeplab,
    "torchvision LR-ASPP-MobileNetV3": torchvision_lraspp,
    "torchvision DeepLabv3-MobileNetV3": torchvision_deeplab,
    "segmentation-models-pytorch DeepLabv3+ MobileNetV2": smp_deeplab,
}


def installed(peers: Mapping[str, Callable[[int, int], Peer]], classes: int, size: int) -> dict[str, Peer]:
    """Builds the peers, and says which are left out because they are not installed."""
    found = {}
    for name, build in peers.items():
        try:
            found[name] = build(classes, size)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found
