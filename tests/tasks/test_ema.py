"""The weight average: its growing decay, and that an interrupt leaves the trained weights in place."""

from pathlib import Path

import pytest
import torch

from tasks.detect.__main__ import main
from tasks.detect.module import DetectionModule
from tasks.ema import _average


def test_decay_grows_up_to_its_limit() -> None:
    for updates, share in ((1, 2 / 11), (10, 11 / 20), (10**6, 0.9)):
        average = [torch.zeros(3)]
        _average(average, [torch.ones(3)], torch.tensor(updates), decay=0.9)
        assert torch.allclose(average[0], torch.full((3,), 1 - share), atol=1e-6)


def test_counters_are_copied() -> None:
    average = [torch.tensor(3)]
    _average(average, [torch.tensor(7)], 5, decay=0.9)
    assert average[0].item() == 7


FLAGS = [
    *("--data.train_images=8", "--data.val_images=4", "--data.size=[96,96]", "--data.batch_size=4", "--data.num_workers=0"),
    *("--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false", "--trainer.precision=32-true"),
]


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return sum(float((first[name].double() - second[name].double()).abs().sum()) for name in first)


def test_average_of_a_short_run_is_not_its_beginning(shapes_root: Path, tmp_path: Path) -> None:
    main(["fit", f"--data.root={shapes_root}", *FLAGS, f"--runs={tmp_path}", "--trainer.max_epochs=2"])
    checkpoints = tmp_path / "detect/ssdlite_mobilenet_v2_shapes/checkpoints"
    loaded = torch.load(checkpoints / "last.ckpt", weights_only=True)
    average, current = loaded["state_dict"], loaded["current_model_state"]
    counters = [name for name in average if name.endswith("num_batches_tracked")]
    assert all(average[name] == current[name] == 4 for name in counters)
    assert distance(average, current) > 0


def test_interrupted_validation_keeps_the_trained_weights(shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["fit", f"--data.root={shapes_root}", *FLAGS, "--trainer.max_epochs=1"]
    main([*flags, f"--runs={tmp_path / 'whole'}"])

    def interrupt(self: DetectionModule, *args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectionModule, "validation_step", interrupt)
    with pytest.raises(SystemExit):
        main([*flags, f"--runs={tmp_path / 'stopped'}"])
    run = "detect/ssdlite_mobilenet_v2_shapes/checkpoints/last.ckpt"
    whole, stopped = (torch.load(tmp_path / name / run, weights_only=True) for name in ("whole", "stopped"))
    assert distance(whole["current_model_state"], stopped["current_model_state"]) == 0
    assert distance(whole["state_dict"], stopped["state_dict"]) == 0
