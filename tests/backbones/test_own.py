"""The README's own backbones work from a file in the working directory."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import Backbone, ModuleBackbone
from backbones.spec import describe, rebuild
from tasks.detect.__main__ import main
from tests.backbones.contract import BackboneContract, outputs

README = (Path(__file__).parents[2] / "README.md").read_text()


def file_of(mark: str) -> str:
    """The README's block of Python under this mark."""
    (block,) = re.findall(rf"<!-- {mark} -->\n```python\n(.*?)```", README, re.S)
    return block


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the README's files, on the path as `python -m` puts it there."""
    (tmp_path / "ownnet.py").write_text(file_of("own backbone"))
    (tmp_path / "plainnet.py").write_text(file_of("own module"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_own_backbone_is_short() -> None:
    assert len(file_of("own backbone").splitlines()) < 30


@pytest.mark.usefixtures("folder")
class TestOwnNet(BackboneContract):
    drops_layers = False

    def build(self, **arguments: Any) -> Backbone:
        import ownnet

        return ownnet.OwnNet(**arguments)

    @pytest.mark.parametrize("argument", ["output_stride", "freeze_bn"])
    def test_output_stride(self, argument: str) -> None:
        with pytest.raises(TypeError, match=argument):  # it has no such arguments, and needs none
            self.build(**{argument: 16})

    test_other_output_strides_are_refused = test_frozen_batch_norms_do_not_change = None


@pytest.mark.usefixtures("folder")
def test_the_plain_module_is_a_backbone() -> None:
    backbone = ModuleBackbone("plainnet.PlainNet", ["stages.3", "stages.4"], settings={"width": 4})
    assert [tuple(tap) for tap in backbone.taps.values()] == [(32, 16, True), (64, 32, True)]
    twin = rebuild(describe(backbone), Backbone)
    twin.load_state_dict(backbone.state_dict())
    images = torch.randn(1, 3, 65, 64)
    assert torch.equal(outputs(twin, images)["stages.4"], outputs(backbone, images)["stages.4"])


def test_own_backbone_trains_from_the_command_line(folder: Path, shapes_root: Path) -> None:
    quick = [
        *(f"--data.root={shapes_root}", "--data.train_images=8", "--data.val_images=4", "--data.size=[96,96]"),
        *("--data.batch_size=4", "--data.num_workers=0", f"--runs={folder / 'runs'}", "--trainer.log_every_n_steps=1"),
        *("--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false", "--trainer.precision=32-true"),
    ]
    main(["fit", "--model.backbone", "ownnet.OwnNet", "--model.backbone.taps", "null", *quick, "--trainer.max_epochs=1"])
    checkpoint = folder / "runs/detect/ssdlite_mobilenet_v2_shapes/checkpoints/best.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    assert stored["detector"]["backbone"]["class_path"] == "ownnet.OwnNet"
    assert stored["global_step"] == 2
    main(["validate", "--ckpt_path", str(checkpoint)])
