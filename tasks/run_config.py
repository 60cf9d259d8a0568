"""The config.yaml of a run: when it is written, and what a continued run changes in it."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import yaml  # type: ignore[import-untyped]
from lightning.pytorch.cli import SaveConfigCallback

from tasks.files import write_whole

log = logging.getLogger("lightning.pytorch")

# What changes neither weights nor figures, or may be what a stopped run needs to go on.
HARMLESS = (
    *("runs", "ckpt_path", "allow_changes", "checkpoint_minutes", "checkpoint_steps", "data.init_args.num_workers"),
    *("model.on_nan", "model.engine", "model.engine_precision"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.enable_checkpointing", "trainer.num_sanity_val_steps"),
    *("trainer.logger", "trainer.log_every_n_steps", "trainer.default_root_dir", "trainer.profiler"),
)


class RunConfig(SaveConfigCallback):
    """Writes config.yaml: that of a new run at once, that of a continued one when it does go on."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Writes, but not yet over that of a run."""
        is_first, self.already_saved = not self.already_saved, True  # after training comes an evaluation
        if is_first and (stage != "fit" or not self._place(trainer).is_file()):
            self._write(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes what was changed."""
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            write_whole(self._place(trainer), self.parser.dump(self.config, skip_none=False).encode())

    def _place(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.config_filename


def check_changes(run: Path, config: str, allowed: bool) -> None:
    """Refuses to continue a run with another configuration, or names what changes.

    Args:
        run: the run's folder.
        config: the configuration as YAML.
        allowed: whether to go on.

    Raises:
        ValueError: there are changes that are not allowed.
    """
    changed = "; ".join(changes(run / "config.yaml", config))
    if changed and not allowed:
        raise ValueError(f"the run {run} had another config ({changed}); continue it unchanged, or add --allow_changes true")
    if changed:
        log.warning("%s goes on with changes: %s", run, changed)


def changes(old: Path, new: str) -> list[str]:
    """Returns what differs between the config.yaml of a run and the configuration of now, as `key: old -> new`.

    Args:
        old: the file.
        new: the configuration as YAML.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        before, now = (dict(_flat(yaml.safe_load(text))) for text in (old.read_text(encoding="utf-8"), new))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{old}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    keys = [key for key in before | now if not any(key == name or key.startswith(f"{name}.") for name in HARMLESS)]
    return [f"{key}: {_show(before, key)} -> {_show(now, key)}" for key in keys if _show(before, key) != _show(now, key)]


def _show(config: dict[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "(not there)"


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; lists of plain values are values."""
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if parts and (isinstance(value, dict) or any(isinstance(part, dict) for part in value)):
        for name, part in parts:
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
