"""Class names, and the one place that says how labels count.

Detection: `num_classes` counts foreground classes, labels are 1..K and 0 is the background (torchvision's convention), so that
`class_names[label - 1]` names a label. Segmentation: `num_classes` counts all classes, 0 is the background, and
`class_names[label]` names a label.
"""

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
