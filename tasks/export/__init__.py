"""Exported networks: ONNX and OpenVINO files, and running them."""
