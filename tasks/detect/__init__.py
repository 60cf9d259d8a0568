"""Detection: SSDLite and SSD on COCO, VOC, one's own boxes and the built-in shapes."""
