"""Training on CPUs by compiled loops, against torch's own operators in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones import loops
from backbones.layers import Conv2d
from backbones.norm import BatchNorm2d, ConvNormAct

ACTIVATIONS = [nn.ReLU6(), nn.ReLU(), nn.Identity()]
# Relative errors: those of sums in float32, and of one rounding to bfloat16.
LIMITS = {torch.float32: 1e-6, torch.bfloat16: 4e-3}


@pytest.fixture(autouse=True)
def loops_for_small_features(monkeypatch: pytest.MonkeyPatch) -> None:
    if loops._parallel() is None:
        pytest.skip("torch was built without OpenMP")
    monkeypatch.setattr(loops, "LEAST_SIZE", 0)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Features that torch holds exactly in both types."""
    return torch.randn(shape).to(torch.bfloat16).to(dtype).contiguous(memory_format=torch.channels_last)


def results(layer: nn.Module, input: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and statistics after a step."""
    input = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(input)
    output.backward(gradient.to(output.dtype).expand_as(output))
    found = {name: value.grad for name, value in layer.named_parameters() if value.grad is not None}
    return {"output": output.detach(), "input": input.grad, **found, **dict(layer.named_buffers())}  # type: ignore[dict-item]


def exact(layer: nn.Module) -> nn.Module:
    """Torch's own layer with the same weights, in float64."""
    return copy.deepcopy(layer).double()


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        apart = float((found[name].double() - value).norm() / value.double().norm().clamp(min=1e-12))
        assert apart <= limit, f"{name} is apart by a share of {apart}"


def used(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects the calls of loops."""
    calls: list[Any] = []
    for module in ("norm", "depthwise"):
        monkeypatch.setattr(f"backbones.{module}.on_all_threads", lambda *args: calls.append(args) or loops.on_all_threads(*args))
    return calls


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 16, 33, 33), (4, 40, 20, 12), (3, 300, 9, 9), (2, 8, 3, 2)], ids=str)
def test_norm_equals_torch(shape: tuple[int, ...], activation: nn.Module, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = used(monkeypatch)
    torch.manual_seed(0)
    layer = ConvNormAct(nn.Identity(), BatchNorm2d(shape[1], momentum=0.3), activation)
    nn.init.uniform_(layer[1].weight, -2, 4)
    nn.init.uniform_(layer[1].bias, 0, 3)
    input, gradient = draw(*shape, dtype=dtype) * 3 + 8, draw(*shape, dtype=dtype)
    expected = results(exact(layer), input.double(), gradient)
    found = results(layer, input, gradient)
    assert len(calls) == 4
    assert found["output"].dtype == found["input"].dtype == dtype
    assert found["output"].is_contiguous(memory_format=torch.channels_last)
    assert_near(found, expected, LIMITS[dtype])
    assert layer[1].num_batches_tracked == 1


def test_norm_far_from_zero() -> None:
    layer = BatchNorm2d(8)
    input, gradient = draw(2, 8, 40, 40) + 1000, draw(2, 8, 40, 40)
    expected = results(exact(layer), input.double(), gradient)
    assert_near(results(layer, input, gradient), expected, 1e-4)


def test_norm_under_autocast_returns_bfloat16() -> None:
    layer, input, gradient = BatchNorm2d(8), draw(2, 8, 40, 40), draw(2, 8, 40, 40)
    expected = results(exact(layer), input.double(), gradient)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(layer, input, gradient)
    assert (found["output"].dtype, found["input"].dtype) == (torch.bfloat16, torch.float32)
    assert_near(found, expected, LIMITS[torch.bfloat16])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_features_stay_so(bad: float) -> None:
    layer, input = ConvNormAct(nn.Identity(), BatchNorm2d(4), nn.ReLU6()), draw(2, 4, 8, 8)
    input[1, 2, 3, 4] = bad
    output = layer(input)
    assert output[:, 2].isnan().all()
    assert output[:, [0, 1, 3]].isfinite().all()
    assert layer[1].running_mean[2].isfinite() == False  # noqa: E712


def test_sums_do_not_depend_on_threads() -> None:
    layer = nn.Sequential(Conv2d(16, 16, 3, stride=2, groups=16), BatchNorm2d(16))
    input, gradient, threads = draw(3, 16, 33, 47), draw(3, 16, 17, 24), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(results(copy.deepcopy(layer), input, gradient))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items())


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (3, 1, 2), (3, 1, 4), (5, 2, 1), (7, 2, 1), (5, 3, 1)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 17), (33, 32)], ids=str)
def test_depthwise_equals_torch(
    size: tuple[int, int], kernel: int, stride: int, dilation: int, padding: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = used(monkeypatch)
    torch.manual_seed(0)
    layer = Conv2d(24, 24, kernel, stride, dilation, groups=24, padding_rule=padding)
    input = draw(2, 24, *size, dtype=dtype)
    gradient = draw(*exact(layer)(input.double()).shape, dtype=dtype)
    expected = results(exact(layer), input.double(), gradient)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = results(layer, input, gradient)
    assert len(calls) == 3
    assert found["output"].dtype == found["input"].dtype == dtype
    assert found["output"].is_contiguous(memory_format=torch.channels_last)
    assert_near(found, expected, LIMITS[dtype])


def test_depthwise_under_autocast_takes_float32() -> None:
    layer, input, gradient = Conv2d(8, 8, 3, 2, groups=8), draw(2, 8, 9, 9), draw(2, 8, 5, 5)
    expected = results(exact(layer), input.double(), gradient)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(layer, input, gradient)
    assert (found["output"].dtype, found["input"].dtype, found["weight"].dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert_near(found, expected, 2 * LIMITS[torch.bfloat16])


def test_torch_does_what_loops_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = used(monkeypatch)
    layer = ConvNormAct(Conv2d(8, 8, 3, 2, groups=8), BatchNorm2d(8), nn.ReLU6())
    input = draw(2, 8, 9, 9)
    layer(input.contiguous())  # another order of memory
    exact(layer)(input.double())
    with torch.no_grad():
        layer[0](input)
    layer.eval()
    layer[1](input)
    layer.train()
    Conv2d(8, 8, 3, 2, groups=4)(input)
    Conv2d(8, 8, 3, 2, groups=8, bias=True)(input)
    BatchNorm2d(8, momentum=None)(input)
    BatchNorm2d(8)(input[:1, :, :1, :1])  # one value a channel
    BatchNorm2d(8, affine=False)(input)
    torch.compile(layer, backend="eager")(input)
    with torch.device("meta"):
        BatchNorm2d(8)(input.to("meta"))
    monkeypatch.setattr(loops, "LEAST_SIZE", input.numel() + 1)
    layer(input)
    assert calls == []


def test_hooks_see_what_passes() -> None:
    layer, seen = ConvNormAct(nn.Identity(), BatchNorm2d(4), nn.ReLU6()), []
    layer[1].register_forward_hook(lambda module, inputs, output: seen.append(float(output.detach().min())))
    layer(draw(2, 4, 8, 8))
    assert seen[0] < 0
    assert layer[:2](draw(2, 4, 8, 8)).min() < 0


def test_what_comes_behind_may_work_in_place() -> None:
    for layer in (Conv2d(8, 8, 3, 2, groups=8), BatchNorm2d(8)):
        found = results(nn.Sequential(layer, nn.ReLU6(inplace=True)), draw(2, 8, 9, 9), torch.ones(1))
        assert float(found["output"].min()) == 0


def test_gradients_of_chosen_parameters() -> None:
    layer = nn.Sequential(Conv2d(8, 8, 3, 2, groups=8), BatchNorm2d(8))
    layer[0].weight.requires_grad_(False)
    layer(draw(2, 8, 9, 9)).square().sum().backward()
    assert layer[0].weight.grad is None
    assert float(layer[1].weight.grad.norm()) > 0
