"""Class names, and the one place that says how labels count.

Detection: `num_classes` counts foreground classes, labels are 1..K and 0 is the background (torchvision's convention), so that
`class_names[label - 1]` names a label. Segmentation: `num_classes` counts all classes, 0 is the background, and
`class_names[label]` names a label.
"""

from collections import Counter
from collections.abc import Sequence

# PASCAL VOC 2007 to 2012, in the devkit's order.
VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# PASCAL VOC's segmentation classes: mask value v stands for `VOC_MASK_CLASSES[v]`.
VOC_MASK_CLASSES = ("background", *VOC_CLASSES)

# COCO's names of VOC's 20 classes, in VOC's order.
COCO_NAMES_OF_VOC = (
    "airplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorcycle",
    "person",
    "potted plant",
    "sheep",
    "couch",
    "train",
    "tv",
)

# The ids that COCO gives to its 80 classes; 1 to 90 with gaps.
COCO_IDS = tuple(number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))


def coco_classes() -> tuple[str, ...]:
    """COCO's 80 class names by ascending id, from torchvision, which has 91 with gaps and a background."""
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    names = SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]
    return tuple(names[number] for number in COCO_IDS)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Tells names apart that occur twice, such as ImageNet's two cranes: figures are kept by name."""
    count, seen = Counter(names), Counter[str]()
    told = []
    for name in names:
        seen[name] += 1
        told.append(f"{name} ({seen[name]})" if count[name] > 1 else name)
    return tuple(told)


def imagenet_classes(count: int) -> tuple[str, ...] | None:
    """ImageNet's 1000 class names from torchvision, or the 1001 of TensorFlow with the background first; None for other counts."""
    from torchvision.models import MobileNet_V2_Weights

    names = distinct(MobileNet_V2_Weights.DEFAULT.meta["categories"])
    return {1000: names, 1001: ("background", *names)}.get(count)
