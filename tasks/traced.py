"""Networks as graphs whose operators oneDNN fuses, for inference on CPUs."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Shapes of inputs for which graphs are kept.
MOST_GRAPHS = 8
# By how much, as a share of the largest, values of a graph may differ from the network's: rounding is a hundredth of it in float32, and a
# fifth in bfloat16. oneDNN errs by more in some products of large with small tensors.
LIMITS = {torch.float32: 1e-4}
HALF_LIMIT = 0.1
# torch's graph executor looks at the first call and compiles at the second.
CALLS = 2

log = logging.getLogger("lightning.pytorch")


class Traced:
    """Computes what a network does by graphs, one for each shape of input, from a shape's second input on; making one takes half a second.

    The network itself computes inputs elsewhere than on a CPU, under autocast or with gradients, and all where torch makes no graph, or one
    whose results differ by more than rounding.

    Args:
        network: from (B, C, H, W) inputs to a tensor, or a tuple, which may be a named one, of tensors and other values; its weights must
            not change.
    """

    def __init__(self, network: Callable[[Tensor], Any]) -> None:
        self.network = network
        self.graphs: dict[Any, Callable[[Tensor], Any] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"network": self.network, "graphs": {}}  # copies make graphs of their own

    def __call__(self, input: Tensor) -> Any:
        """Returns what the network does."""
        is_plain = input.device.type == "cpu" and not input.requires_grad and not torch.is_autocast_enabled("cpu")
        if not is_plain or torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return self.network(input)
        input = input.contiguous(memory_format=torch.channels_last)
        key = input.shape, input.dtype
        if key not in self.graphs:
            while len(self.graphs) >= MOST_GRAPHS:
                del self.graphs[next(iter(self.graphs))]
            self.graphs[key] = None
            return self.network(input)
        run = self.graphs[key]
        if run is None:
            run = self.graphs[key] = _trace(self.network, input)
        return run(input)


def _trace(network: Callable[[Tensor], Any], example: Tensor) -> Callable[[Tensor], Any]:
    """Returns a graph for inputs like the example, or the network where torch can make none."""
    with torch.inference_mode(False):
        example = example.clone(memory_format=torch.preserve_format)
        with torch.enable_grad():
            output = network(example.clone(memory_format=torch.preserve_format).requires_grad_())
        kind, parts = type(output), _parts(output)
        # What does not follow from the input, such as anchors, stays as it is.
        follows = [isinstance(part, Tensor) and part.requires_grad for part in parts]
        try:
            with torch.no_grad(), warnings.catch_warnings(), _fusion():
                warnings.simplefilter("ignore")  # of sizes as constants, which they are, and of torch about its tracer
                traced = torch.jit.trace(_Following(network, follows).eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
                graph = torch.jit.freeze(traced)
                for _ in range(CALLS):
                    found = graph(example)
        except RuntimeError as error:
            log.debug("torch makes no graph for inputs of %s: %s", list(example.shape), error)
            return network
        wanted = [part.detach() for part, follow in zip(parts, follows, strict=True) if follow]
        if any(_apart(one, two) > LIMITS.get(example.dtype, HALF_LIMIT) for one, two in zip(found, wanted, strict=True)):
            log.debug("torch's graph for inputs of %s computes something else", list(example.shape))
            return network
        kept = [None if follow else part for part, follow in zip(parts, follows, strict=True)]

    def run(input: Tensor) -> Any:
        with torch.no_grad():
            found = iter(graph(input))
        every = [next(found) if follow else part for part, follow in zip(kept, follows, strict=True)]
        if issubclass(kind, Tensor):
            return every[0]
        return tuple(every) if kind is tuple else kind(*every)

    return run


class _Following(nn.Module):
    """The parts of a network's output that follow from its input."""

    def __init__(self, network: Callable[[Tensor], Any], follows: Sequence[bool]) -> None:
        super().__init__()
        self.network, self.follows = network, follows

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Returns tensors only."""
        return tuple(part for part, follows in zip(_parts(self.network(input)), self.follows, strict=True) if follows)


def _apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))


def _parts(output: Any) -> tuple[Any, ...]:
    return (output,) if isinstance(output, Tensor) else tuple(output)


@contextmanager
def _fusion() -> Iterator[None]:
    """Lets torch's graph executor, which is one for the whole process, fuse by oneDNN."""
    before = torch.jit.onednn_fusion_enabled()  # type: ignore[no-untyped-call]
    torch.jit.enable_onednn_fusion(True)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)  # type: ignore[no-untyped-call]
