"""What a continued run changes in its configuration."""

from pathlib import Path

import yaml

from tasks.run_config import changes


def changed(tmp_path: Path, old: object, new: object) -> list[str]:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    return changes(tmp_path / "config.yaml", yaml.safe_dump(new))


def test_keys_with_both_values(tmp_path: Path) -> None:
    old = {"data": {"size": [1, 2], "x": None}, "trainer": {"callbacks": [{"init_args": {"decay": 0.9}}, "a"], "max_epochs": 1}}
    new = {"data": {"size": [1, 3], "x": None}, "trainer": {"callbacks": [{"init_args": {"decay": 0.8}}, "a"]}, "extra": {}}
    assert changed(tmp_path, old, old) == []
    assert changed(tmp_path, old, new) == [
        "data.size: [1, 2] -> [1, 3]",
        "trainer.callbacks.0.init_args.decay: 0.9 -> 0.8",
        "trainer.max_epochs: 1 -> (not there)",
        "extra: (not there) -> {}",
    ]


def test_what_changes_no_result_is_left_out(tmp_path: Path) -> None:
    old = {"runs": "a", "data": {"init_args": {"num_workers": 0}}, "trainer": {"logger": None, "enable_progress_bar": True}}
    new = {"runs": "b", "data": {"init_args": {"num_workers": 4}}, "trainer": {"logger": {"a": 1}, "enable_progress_bar": False}}
    assert changed(tmp_path, old, new) == []
