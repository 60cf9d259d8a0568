"""Non-maximum suppression against torchvision's, at the thresholds of its SSDLite, on the outputs of a trained detector."""

from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from heads import BoxPredictions, Detections
from heads.multibox import SigmoidLoss
from heads.nms import Suppression
from tasks.bench.race import Race
from tasks.detect.model import Detector
from tasks.images import find_images, read_image, resize_image

# Thresholds of torchvision's ssdlite320_mobilenet_v3_large, of the MobileNetV2 paper's SSDLite in COCO's evaluation, and of an application.
RULES = {
    "evaluation": Suppression(0.001, 0.55, max_per_class=300, max_detections=300, candidates_per_class=300),
    "SSD's paper": Suppression(0.01, 0.45, max_per_class=400, max_detections=200, candidates_per_class=400),
    "application": Suppression(0.3, 0.45, max_per_class=100, max_detections=100, candidates_per_class=100),
}

PEER = "torchvision.models.detection.ssd"
# Images whose outputs are looked at together, as in an evaluation.
BATCH = 16
# Pixels, and thousandths of a score, by which equal detections may differ.
APART = 0.1


def races(detector: str, images: str, limit: int = 64) -> Iterator[Race]:
    """Yields the races.

    Args:
        detector: checkpoint of a trained detector; an untrained one scores everything alike.
        images: folder of images to run it on.
        limit: most images.

    Raises:
        ValueError: the checkpoint or the folder cannot be used, or two ways find different objects.
    """
    model, files = Detector.from_checkpoint(detector), find_images([images])[:limit]
    pixels = [torch.from_numpy(resize_image(read_image(file), model.size)).permute(2, 0, 1) for file in files]
    with torch.no_grad():
        outputs = [model.eval()(torch.stack(pixels[first : first + BATCH])) for first in range(0, len(pixels), BATCH)]
    for name, rule in RULES.items():
        yield _race(name, rule, model, outputs)


def _race(name: str, rule: Suppression, detector: Detector, outputs: Sequence[BoxPredictions]) -> Race:
    size, peer = torch.tensor([detector.size]), _peer(rule, detector)
    sigmoid = isinstance(detector.head.class_loss, SigmoidLoss)

    def theirs() -> list[dict[str, Tensor]]:
        found = []
        # Its scores are a softmax, those of some detectors are not; and it clips boxes before suppression, TensorFlow and we after it.
        with (
            mock.patch(f"{PEER}.F.softmax", lambda logits, dim: logits.sigmoid() if sigmoid else logits.softmax(dim)),
            mock.patch(f"{PEER}.box_ops.clip_boxes_to_image", lambda boxes, size: boxes),
        ):
            for output in outputs:
                head = {"bbox_regression": output.box_deltas, "cls_logits": output.class_logits}
                found += peer.postprocess_detections(
                    head, [output.anchors] * len(output.box_deltas), [output.input_size] * len(output.box_deltas)
                )
        return found

    def ours() -> list[Detections]:
        before, detector.head.suppression = detector.head.suppression, rule
        found = [
            detections for output in outputs for detections in detector.head.postprocess(output, size.expand(len(output.box_deltas), 2))
        ]
        detector.head.suppression = before
        return found

    clipped = [found | {"boxes": clip_boxes_to_image(found["boxes"], detector.size)} for found in theirs()]
    count = _compare(clipped, ours())
    return Race(
        f"non-maximum suppression: {name}",
        "images",
        sum(len(output.box_deltas) for output in outputs),
        "torchvision",
        {"torchvision": theirs, "heads.nms": ours},
        f"{count:,} detections in {sum(len(output.box_deltas) for output in outputs)} images: labels, scores and boxes",
    )


def _peer(rule: Suppression, detector: Detector) -> Any:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    return ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=len(detector.class_names) + 1,
        score_thresh=rule.score_threshold,
        nms_thresh=rule.iou_threshold,
        topk_candidates=rule.candidates_per_class,
        detections_per_img=rule.max_detections,
    )


def _compare(theirs: list[dict[str, Tensor]], ours: list[Detections]) -> int:
    """Returns the number of detections.

    Raises:
        ValueError: they differ by more than rounding.
    """
    for number, (one, two) in enumerate(zip(theirs, ours, strict=True)):
        if one["scores"].shape != two.scores.shape:
            raise ValueError(f"image {number}: torchvision finds {len(one['scores'])} objects, heads.nms {len(two.scores)}")
        rows = [
            torch.cat([found[:, None] for found in (labels * 1e4, scores * 1e3)] + [boxes], dim=1)
            for labels, scores, boxes in ((one["labels"], one["scores"], one["boxes"]), (two.labels, two.scores, two.boxes))
        ]
        # Of equal scores either may come first, so that each is compared with the one most like it.
        apart = torch.cdist(rows[0], rows[1], p=torch.inf).amin(dim=1).amax() if len(two.scores) else torch.zeros(())
        if apart > APART:
            raise ValueError(f"image {number}: detections of torchvision and heads.nms are up to {apart:.3f} pixels or thousandths apart")
    return sum(len(found.scores) for found in ours)
