"""Image classification: MobileNetV2's own task, and the way to pretrain a backbone."""
