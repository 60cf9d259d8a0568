"""Graphs that oneDNN fused compute what the network does."""

import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones import MobileNetV1, MobileNetV2, TorchvisionBackbone
from heads import LRASPP, SSD, ClassifierHead, DeepLabV3, SSDLite
from tasks.classify.model import Classifier
from tasks.detect.model import Detector
from tasks.model import TaskModel
from tasks.segment.model import Segmenter
from tasks.traced import MOST_GRAPHS, Traced
from tests.backbones.contract import randomise

SMALL: Any = partial(MobileNetV2, width_mult=0.35)
MODELS = {
    "ssdlite": lambda: Detector(SMALL(), SSDLite, ("cat", "dog"), (96, 96)),
    "ssd": lambda: Detector(SMALL(padding="same"), SSD, ("cat", "dog"), (96, 97)),
    "mobilenet_v1": lambda: Detector(MobileNetV1(width_mult=0.25), SSDLite, ("cat", "dog"), (96, 96)),
    "deeplabv3": lambda: Segmenter(SMALL(output_stride=16, padding="same"), DeepLabV3, ("background", "cat"), (65, 65)),
    "aspp": lambda: Segmenter(SMALL(output_stride=8), partial(DeepLabV3, atrous_rates=(6,)), ("background", "cat"), (65, 65)),
    "decoder": lambda: Segmenter(SMALL(output_stride=16), partial(DeepLabV3, decoder=True), ("background", "cat"), (65, 65)),
    "lraspp": lambda: Segmenter(SMALL(), LRASPP, ("background", "cat"), (64, 64)),
    "classifier": lambda: Classifier(SMALL(), ClassifierHead, ("cat", "dog"), (64, 64)),
    "foreign": lambda: Detector(TorchvisionBackbone("mobilenet_v3_small"), SSDLite, ("cat", "dog"), (96, 96)),
}
# oneDNN fails at its concatenation.
UNTRACED = ("decoder",)


def tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)]


def graphs(model: TaskModel) -> list[Any]:
    assert model.traced is not None
    return [run for run in model.traced.graphs.values() if run is not None]


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    randomise(model.eval())
    fast = copy.deepcopy(model).optimize()
    for _ in range(4):
        images = torch.randint(0, 256, (2, 3, *model.size), dtype=torch.uint8)
        with torch.no_grad():
            expected, found = model(images), fast(images)
        assert type(found) is type(expected)
        for one, two in zip(tensors(expected), tensors(found), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
        if not isinstance(found, Tensor):
            assert found[3:] == expected[3:]
    assert [run != fast.traced.network for run in graphs(fast)] == [name not in UNTRACED]
    with torch.inference_mode():
        torch.testing.assert_close(tensors(fast(images)), tensors(found), rtol=0, atol=0)


def test_bfloat16() -> None:
    model = MODELS["ssdlite"]()
    randomise(model.eval())
    fast = copy.deepcopy(model).optimize(torch.bfloat16)
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images)
        for _ in range(3):
            found = fast(images)
            for one, two in zip(expected[:2], found[:2], strict=True):
                assert two.dtype == torch.bfloat16
                assert float((one - two).norm() / one.norm()) < 0.05
    assert len(graphs(fast)) == 1
    assert fast.predict(np.zeros((50, 60, 3), np.uint8)).boxes.dtype == torch.float32


def test_shapes_that_come_once_have_no_graph() -> None:
    traced = Traced(nn.Conv2d(3, 4, 3).requires_grad_(False))
    for size in (8, 9, 10, 9, 9):
        traced(torch.rand(1, 3, size, size))
    assert [key[0][2] for key, run in traced.graphs.items() if run is not None] == [9]
    for size in range(20, 40):
        traced(torch.rand(1, 3, size, size))
    assert len(traced.graphs) == MOST_GRAPHS


class Output(NamedTuple):
    """What follows from the input, what does not, and what is no tensor."""

    follows: Tensor
    stays: Tensor
    size: tuple[int, int]


def test_what_does_not_follow_from_the_input_stays() -> None:
    anchors = torch.rand(3)
    traced = Traced(lambda input: Output(input * 2, anchors, (4, 5)))
    for _ in range(4):
        input = torch.rand(1, 2, 3, 4)
        found = traced(input)
        assert torch.equal(found.follows, input * 2)
        assert found.stays is anchors
        assert found.size == (4, 5)
    several = Traced(lambda input: (input + 1, input - 1))
    assert all(torch.equal(several(input)[1], input - 1) for _ in range(3))


def test_networks_that_cannot_be_traced_run_as_they_are() -> None:
    def network(input: Tensor) -> Tensor:
        if torch._C._get_tracing_state() is not None:
            raise RuntimeError("no")
        return input * 2

    traced, input = Traced(network), torch.rand(1, 2, 3, 4)
    for _ in range(3):
        assert torch.equal(traced(input), network(input))


def test_graphs_that_err_are_not_used() -> None:
    def network(input: Tensor) -> Tensor:
        return input * (2.001 if torch._C._get_tracing_state() is not None else 2)

    traced, input = Traced(network), torch.rand(1, 2, 3, 4)
    for _ in range(3):
        assert torch.equal(traced(input), input * 2)


def test_foreign_networks_have_no_graphs_in_bfloat16() -> None:
    assert MODELS["foreign"]().optimize(torch.bfloat16).traced is None
    assert MODELS["foreign"]().optimize().traced is not None
    assert all(MODELS[name]().optimize(torch.bfloat16).traced is not None for name in MODELS if name != "foreign")


def test_gradients_and_autocast_are_left_to_the_network() -> None:
    traced = Traced(nn.Conv2d(3, 4, 3))
    input = torch.rand(1, 3, 8, 8)
    for _ in range(3):
        assert traced(input.clone().requires_grad_()).requires_grad
        with torch.autocast("cpu", torch.bfloat16):
            assert traced(input).dtype == torch.bfloat16
    assert traced.graphs == {}


def test_copies_make_graphs_of_their_own() -> None:
    fast = MODELS["ssdlite"]().optimize()
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    first, second = fast(images), fast(images)
    other = copy.deepcopy(fast)
    assert other.traced.network.__self__ is other
    assert graphs(other) == []
    for one, two, three in zip(first[:2], second[:2], other(images)[:2], strict=True):
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(three, one)


def test_the_switch_of_the_process_is_put_back() -> None:
    before = torch.jit.onednn_fusion_enabled()
    test_copies_make_graphs_of_their_own()
    assert torch.jit.onednn_fusion_enabled() == before
