"""Segmentation: Mobile DeepLabv3 and other heads on VOC, COCO, one's own masks and the built-in shapes."""
