"""What networks cost: parameters, multiply-adds, activation memory and latency, beside the figures of the MobileNetV2 paper."""
