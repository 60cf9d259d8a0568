"""The paper's networks around a backbone, without weights."""

from collections.abc import Sequence
from functools import partial

from backbones import Backbone
from heads import ClassifierHead, DeepLabV3, SSDLite
from tasks.classify.model import Classifier
from tasks.detect.model import Detector
from tasks.labels import VOC_MASK_CLASSES
from tasks.segment.model import Segmenter

# Classes of ILSVRC 2012 and of COCO's boxes.
IMAGENET_CLASSES, COCO_CLASSES = 1000, 80
# Scales of table 7's multi-scale inputs (research/deeplab, eval.py).
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def names(count: int) -> list[str]:
    """Returns that many class names."""
    return [f"class {number}" for number in range(1, count + 1)]


def classifier(backbone: Backbone) -> Classifier:
    """A network of table 4, at 224 x 224."""
    return Classifier(backbone, ClassifierHead, names(IMAGENET_CLASSES), (224, 224))


def detector(backbone: Backbone, head: type[SSDLite] = SSDLite) -> Detector:
    """A network of tables 5 and 6, at 320 x 320."""
    return Detector(backbone, head, names(COCO_CLASSES), (320, 320))


def segmenter(backbone: Backbone, atrous_rates: Sequence[int] = (), multi_scale: bool = False) -> Segmenter:
    """A network of table 7, at 513 x 513."""
    head = partial(DeepLabV3, atrous_rates=atrous_rates)
    return Segmenter(backbone, head, VOC_MASK_CLASSES, (513, 513), scales=SCALES if multi_scale else (1.0,), flip=multi_scale)
