"""torch.compile and CUDA graphs for training, as a callback."""

import os
import shutil
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class Compile(Callback):
    """Compiles the network of any task by `torch.compile` when training begins; weights and checkpoints stay as they are.

    The first steps, and the first of each other size of input, take minutes. Evaluations of their own are not compiled.

    Args:
        mode: torch's: `reduce-overhead` and `max-autotune` replay CUDA graphs on GPUs.
        backend: torch's name of the compiler; `inductor` needs a C++ compiler on CPUs.

    Raises:
        ValueError: there is no such backend or, when training begins, no compiler.
    """

    def __init__(self, mode: Mode = "default", backend: str = "inductor") -> None:
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise ValueError(f"backend {backend!r} is unknown; accepted: {', '.join(known)}")
        self.mode, self.backend = mode, backend

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compiles."""
        if stage != "fit":
            return
        compiler = os.environ.get("CXX", "g++")
        if self.backend == "inductor" and trainer.strategy.root_device.type == "cpu" and shutil.which(compiler) is None:
            raise ValueError(
                f"tasks.compiling.Compile needs a C++ compiler, but there is no {compiler}; install it, or leave the callback out"
            )
        module: Any = pl_module
        for part in (module.model.backbone, module.model.head):
            part.compile(mode=self.mode if self.backend == "inductor" else None, backend=self.backend)
