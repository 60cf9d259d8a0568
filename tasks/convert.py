"""`python -m tasks.convert`: published weights of others to files that `validate` and `predict` take."""

from functools import partial
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from tasks.cli import run_command

# Scopes of research/deeplab's reduced head, in the order of ours.
DEEPLAB_SCOPES = ("image_pooling", "aspp0", "concat_projection", "logits/semantic")


def convert(source: str, output: str) -> None:
    """Converts published weights to a file that holds its architecture, class names and preprocessing.

    Args:
        source: research/deeplab's deeplabv3_mnv2_pascal with folded batch norms, as .npz of float32 arrays (out, in, height, width)
            under TensorFlow's names.
        output: the file to write, for `python -m tasks.segment validate --ckpt_path` and `predict --ckpt_path`.

    Raises:
        ValueError: the file cannot be read, is of another kind, or lacks a tensor.
    """
    from backbones import MobileNetV2
    from backbones.tensorflow import body_scopes, load_folded
    from heads import DeepLabV3
    from tasks.labels import VOC_MASK_CLASSES
    from tasks.segment.model import Segmenter

    tensors = _read_npz(source)
    if f"{DEEPLAB_SCOPES[-1]}/weights" not in tensors:
        raise ValueError(f"{source}: has no tensor {DEEPLAB_SCOPES[-1]}/weights; accepted: deeplabv3_mnv2_pascal with folded batch norms")
    # Preprocessing, padding and batch-norm epsilon of TensorFlow's MobileNetV2; research/deeplab's crop and resize.
    backbone = MobileNetV2(["layer18"], output_stride=16, padding="same", bn_eps=1e-3)
    head = partial(DeepLabV3, padding="same", align_corners=True)
    segmenter = Segmenter(backbone, head, VOC_MASK_CLASSES, (513, 513), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    modules = [*segmenter.backbone.modules(), *segmenter.head.modules()]
    unused = load_folded(modules, [*body_scopes(18), *DEEPLAB_SCOPES], tensors, source)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    segmenter.save(output)
    print(f"{len(tensors) - len(unused)} tensors used, {len(unused)} not{': ' if unused else ''}{', '.join(unused)}; written to {output}")


def _read_npz(source: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    if not Path(source).is_file():
        raise ValueError(f"{source}: no such weights file")
    try:
        with np.load(source, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except Exception as error:  # zip and numpy each raise their own
        raise ValueError(f"{source}: cannot be read as an .npz of plain arrays; is it damaged?") from error


if __name__ == "__main__":
    run_command(lambda: auto_cli(convert, prog="python -m tasks.convert"))
