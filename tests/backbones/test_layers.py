"""The blocks that backbones and heads share."""

import pytest
import torch

from backbones.layers import Conv2d
from tasks.memory import keep_freed_memory


def spoil_freed_memory() -> None:
    """Leaves numbers behind that an operator which forgets to write its result would return."""
    held = [torch.full((3 * 2**power,), 1e4) for power in range(4, 20) for _ in range(3)]
    del held


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 1), (2, 2), (3, 3)], ids=lambda size: "x".join(map(str, size)))
def test_bfloat16_gradients_of_tiny_inputs(size: tuple[int, int], groups: int) -> None:
    keep_freed_memory()
    conv = Conv2d(16, 32, 3, stride=2, groups=groups)
    images = torch.randn(2, 16, *size)
    (expected,) = torch.autograd.grad(conv(images).square().sum(), [conv.weight])
    for _ in range(3):
        spoil_freed_memory()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = conv(images)
        (found,) = torch.autograd.grad(outputs.float().square().sum(), [conv.weight])
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
