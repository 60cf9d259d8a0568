"""The networks that TensorFlow 1 published, written in its own operations under the published names of variables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Graph:
    """Builds layers as slim does: SAME padding, batch norm, ReLU6."""

    def __init__(self, tf: Any, width: float = 1.0, output_stride: int = 32) -> None:
        self.v1, self.width, self.output_stride = tf.compat.v1, width, output_stride

    def channels(self, count: int) -> int:
        """slim's _make_divisible."""
        wanted = count * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def conv(
        self,
        x: Any,
        scope: str,
        channels: int | None,
        kernel: int = 1,
        stride: int = 1,
        rate: int = 1,
        activation: Callable[[Any], Any] | None = None,
        eps: float | None = 1e-3,
    ) -> Any:
        """A convolution, depthwise where `channels` is None; with a bias instead of a batch norm where `eps` is None."""
        with self.v1.name_scope(f"{scope}/"):
            x = self._conv(x, scope, channels, kernel, stride, rate, eps)
            return activation(x) if activation else x

    def _conv(self, x: Any, scope: str, channels: int | None, kernel: int, stride: int, rate: int, eps: float | None) -> Any:
        v1, inputs = self.v1, int(x.shape[3])
        shape = (kernel, kernel, inputs, channels or 1)
        deviation = (2 / (kernel * kernel * (inputs if channels else 1))) ** 0.5
        normal = v1.random_normal_initializer(stddev=deviation)
        weights = v1.get_variable(scope + ("/weights" if channels else "/depthwise_weights"), shape, initializer=normal)
        if channels:
            x = v1.nn.conv2d(x, weights, [1, stride, stride, 1], "SAME", dilations=[1, rate, rate, 1])
        else:
            x = v1.nn.depthwise_conv2d(x, weights, [1, stride, stride, 1], "SAME", dilations=[rate, rate])
        if eps is None:
            x = v1.nn.bias_add(x, v1.get_variable(f"{scope}/biases", (channels,), initializer=v1.random_normal_initializer()))
        else:
            count = channels or inputs
            parts = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.5, 1.5)}
            gamma, beta, mean, variance = (
                v1.get_variable(f"{scope}/BatchNorm/{part}", (count,), initializer=v1.random_uniform_initializer(*span))
                for part, span in parts.items()
            )
            x = v1.nn.batch_normalization(x, mean, variance, beta, gamma, eps)
        return x

    def body(self, x: Any, start: str = "") -> tuple[Any, Any, Any]:
        """The expansion of the 15th layer, the 18th and the 19th layer."""
        relu6 = self.v1.nn.relu6
        x = self.conv(x, f"{start}MobilenetV2/Conv", self.channels(32), 3, 2, activation=relu6)
        number, stride, rate = 0, 2, 1
        tap = None
        for expansion, outputs, repeats, first in BLOCKS:
            for repeat in range(repeats):
                scope = f"{start}MobilenetV2/expanded_conv" + (f"_{number}" if number else "")
                step, own_rate, number = (1 if repeat else first), rate, number + 1
                if stride * step > self.output_stride:
                    step, rate = 1, rate * step
                stride *= step
                inner = self.conv(x, f"{scope}/expand", int(x.shape[3]) * expansion, activation=relu6) if expansion > 1 else x
                tap = inner if number == 14 else tap
                inner = self.conv(inner, f"{scope}/depthwise", None, 3, step, own_rate, relu6)
                inner = self.conv(inner, f"{scope}/project", self.channels(outputs))
                x = x + inner if step == 1 and x.shape[3] == inner.shape[3] and repeat else inner
        last = self.conv(x, f"{start}MobilenetV2/Conv_1", max(1280, self.channels(1280)), activation=relu6)
        return tap, x, last

    def classifier(self, x: Any) -> Any:
        pooled = self.v1.reduce_mean(self.body(x)[2], [1, 2], keepdims=True)
        return self.v1.squeeze(self.conv(pooled, "MobilenetV2/Logits/Conv2d_1c_1x1", 1001, eps=None), [1, 2])

    def deeplab(self, x: Any) -> Any:
        relu, x = self.v1.nn.relu, self.body(x)[1]
        pooled = self.conv(self.v1.reduce_mean(x, [1, 2], keepdims=True), "image_pooling", 256, activation=relu, eps=1e-5)
        pooled = self.v1.image.resize_bilinear(pooled, x.shape[1:3], align_corners=True)
        parts = [pooled, self.conv(x, "aspp0", 256, activation=relu, eps=1e-5)]
        joined = self.conv(self.v1.concat(parts, 3), "concat_projection", 256, activation=relu, eps=1e-5)
        return self.conv(joined, "logits/semantic", 21, eps=None)

    def ssdlite(self, x: Any) -> tuple[Any, Any]:
        """(B, A, 4) y x h w and (B, A, 91) logits."""
        relu6 = self.v1.nn.relu6
        expanded, _, last = self.body(x, "FeatureExtractor/")
        maps = [expanded, last]
        for number, outputs in enumerate((512, 256, 256, 128), start=2):
            scope = "FeatureExtractor/MobilenetV2/layer_19_"
            x = self.conv(maps[-1], f"{scope}1_Conv2d_{number}_1x1_{outputs // 2}", outputs // 2, activation=relu6)
            x = self.conv(x, f"{scope}2_Conv2d_{number}_3x3_s2_{outputs}_depthwise", None, 3, 2, activation=relu6)
            maps.append(self.conv(x, f"{scope}2_Conv2d_{number}_3x3_s2_{outputs}", outputs, activation=relu6))
        found = []
        for part, columns in (("BoxEncodingPredictor", 4), ("ClassPredictor", 91)):
            flat = []
            for level, x in enumerate(maps):
                scope = f"BoxPredictor_{level}/{part}"
                x = self.conv(x, f"{scope}_depthwise", None, 3, activation=relu6)
                x = self.conv(x, scope, (6 if level else 3) * columns, eps=None)
                flat.append(self.v1.reshape(x, (int(x.shape[0]), -1, columns)))
            found.append(self.v1.concat(flat, 1))
        return found[0], found[1]


def train_and_save(tf: Any, images: np.ndarray, network: Callable[[Any], Any], path: Path, averaged: bool) -> list[np.ndarray]:
    """Writes a checkpoint with TensorFlow's Saver, the optimizer's slots and global step in it, and returns the network's outputs.

    With `averaged`, these are the outputs of the averaged variables; the others are noise.
    """
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(1)
        outputs = network(v1.constant(images))
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        variables = v1.global_variables()
        for variable in variables[::3]:
            v1.get_variable(f"{variable.op.name}/Momentum", variable.shape)
        v1.train.get_or_create_global_step()
        averages = [v1.get_variable(f"{v.op.name}/ExponentialMovingAverage", v.shape) for v in variables] if averaged else []
        kept = [average.assign(variable) for variable, average in zip(variables, averages, strict=False)]
        with v1.control_dependencies(kept):
            spoilt = [variable.assign(variable * 0.5 + 0.1) for variable in variables[: len(averages)]]
        saver = v1.train.Saver()
        session.run(v1.global_variables_initializer())
        found = session.run(outputs)
        session.run(spoilt)
        saver.save(session, str(path), write_meta_graph=False)
    return found
