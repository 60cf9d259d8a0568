"""Files are written whole or not at all; of several checkpoints the newest good one is found."""

import os
from pathlib import Path

import pytest
import torch

from tasks.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from tasks.files import write_whole


def test_written_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for content in (b"one", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_full_disk_leaves_what_was_there(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    (tmp_path / f".a.{ending}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"a\.{ending}: cannot be written \(No space left on device\); what was there before is untouched"):
        save_checkpoint({"state_dict": {"w": torch.zeros(3)}}, path)
    assert load_checkpoint(path)["state_dict"]["w"].tolist() == [1, 1, 1]
    assert [file.name for file in tmp_path.iterdir()] == [f"a.{ending}"]


def save(path: Path, step: int, second: int) -> None:
    save_checkpoint({"state_dict": {}, "optimizer_states": [], "global_step": step}, path)
    os.utime(path, (second, second))


def test_newest_checkpoint_by_steps_then_by_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") == tmp_path / "nowhere" / "last.ckpt"
    save(tmp_path / "previous.ckpt", 8, 1)
    save(tmp_path / "best.ckpt", 9, 2)
    save(tmp_path / "last.ckpt", 9, 3)
    save_checkpoint({"state_dict": {}, "global_step": 99}, tmp_path / "exported.ckpt")  # holds no state of training
    (tmp_path / ".new.ckpt.part").write_bytes(b"half")
    assert newest_checkpoint(tmp_path).name == "last.ckpt"
    save(tmp_path / "best.ckpt", 10, 4)  # comes after all others
    assert newest_checkpoint(tmp_path).name == "last.ckpt"
    save(tmp_path / "new.ckpt", 9, 5)
    assert newest_checkpoint(tmp_path).name == "new.ckpt"
    for name in ("new", "last", "previous"):
        (tmp_path / f"{name}.ckpt").unlink()
    assert newest_checkpoint(tmp_path).name == "best.ckpt"
    assert not caplog.records


def test_damaged_checkpoints_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "previous.ckpt", 8, 1)
    for name, content in (("last.ckpt", b""), ("new.ckpt", (tmp_path / "previous.ckpt").read_bytes()[:-40])):
        (tmp_path / name).write_bytes(content)
    assert newest_checkpoint(tmp_path).name == "previous.ckpt"
    assert "damaged and left aside: new.ckpt, last.ckpt; going on from previous.ckpt" in caplog.text
    (tmp_path / "previous.ckpt").unlink()
    assert newest_checkpoint(tmp_path).name == "last.ckpt"
