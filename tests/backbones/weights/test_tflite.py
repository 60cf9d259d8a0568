"""Names in .tflite files; whole files are read in the tests of `tasks.convert`."""

import pytest

from backbones.weights.tflite import _scope


@pytest.mark.parametrize(
    ("names", "scope"),
    [
        (["FeatureExtractor/MobilenetV2/Conv/Relu6"], "FeatureExtractor/MobilenetV2/Conv"),
        (["MobilenetV2/expanded_conv_1/expand/Relu6", "x"], "MobilenetV2/expanded_conv_1/expand"),
        (["MobilenetV2/expanded_conv_1/depthwise/depthwise"], "MobilenetV2/expanded_conv_1/depthwise"),
        (["BoxPredictor_0/ClassPredictor_depthwise/Relu6"], "BoxPredictor_0/ClassPredictor_depthwise"),
        (["out", "BoxPredictor_0/ClassPredictor/weights"], "BoxPredictor_0/ClassPredictor"),
        (["model/Conv1_relu/Relu6;model/bn_Conv1/FusedBatchNormV3;model/Conv1/Conv2D"], "Conv1"),
        (["model/block_1_add_1/Add", "model/block_1_project_1/convolution1"], "block_1_project"),
        (["model/Conv1_1/convolution"], "Conv1"),
        (["model/Conv_1_1/convolution"], "Conv_1"),
        (["model/Conv_1/Conv2D"], "Conv_1"),
        (["model/block_10_expand_1/convolution"], "block_10_expand"),
        (["MobilenetV1/MobilenetV1/Conv2d_1_depthwise/Relu6"], "MobilenetV1/Conv2d_1_depthwise"),
        (["model/conv_pw_11_relu/Relu6;model/conv_pw_11_bn/FusedBatchNormV3;model/conv_pw_11/Conv2D"], "conv_pw_11"),
        (["resnet/conv2/Conv2D"], None),
    ],
)
def test_scope_of_a_convolution(names: list[str], scope: str | None) -> None:
    assert _scope(names) == scope
