"""The command line that all tasks share: LightningCLI with a run folder and a default config."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import yaml  # type: ignore[import-untyped]
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tasks import processes
from tasks.arguments import NO_TEXT, TOO_DEEP, leave_out_weights, reason_of, reset_backbone, value_of
from tasks.check import Describe, check
from tasks.checkpoint import CheckpointFiles, load_checkpoint, newest_checkpoint
from tasks.memory import keep_freed_memory
from tasks.module import TaskModule
from tasks.resume import LastCheckpoint
from tasks.run_config import RunConfig, check_changes
from tasks.run_folder import CsvHistory, latest_run_folder, new_run_folder, run_folder_of
from tasks.times import StepTimes

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class TaskCLI(LightningCLI):
    """One task's command line: fit, validate, test, check, and functions such as predict.

    `fit` and `check` without `--config` take the task's default config; `validate` and `test` of a run's checkpoint use that run's config.

    Args:
        task: name of the task, of its folder under `configs` and under the folder of runs.
        default_config: name of the config that `fit` uses where none is given.
        monitor: the figure that picks `best.ckpt`, larger is better.
        functions: further subcommands, each called by the function's name with its arguments.
        describe: returns what the subcommand `check` says of the task's data, see `tasks.check.check`.
        module_class: the training module.
        data_class: base class of the data sets.
        args: command line, by default that of the process.
    """

    def __init__(
        self,
        task: str,
        default_config: str,
        monitor: str,
        functions: Sequence[Callable[..., None]],
        describe: Describe,
        module_class: type[TaskModule],
        data_class: type[L.LightningDataModule],
        args: Sequence[str] | None = None,
    ) -> None:
        self.task, self.monitor, self.describe = task, monitor, describe
        self.functions = {function.__name__: function for function in functions}
        self.plain_model, self.data_class = module_class.model_class, data_class
        taken: Any = data_class  # a TaskData, but mypy takes no abstract class for an argument's type
        self.linked, self.example = taken.linked, taken.example
        self.default_config = CONFIGS / task / default_config
        super().__init__(
            module_class,
            data_class,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            trainer_defaults={"enable_model_summary": False},
            parser_kwargs={"prog": f"python -m tasks.{task}"},
            args=list(sys.argv[1:] if args is None else args),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands that run the trainer; `check` and functions are added beside them."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's name and folder, and passes what the data knows on to the model."""
        parser.add_argument("--name", type=str, default=self.task, help="Name of the run, and of its folder.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder that holds the runs of all tasks.")
        parser.add_argument("--checkpoint_minutes", type=float, default=15.0, help="Most minutes without a checkpoint within an epoch.")
        parser.add_argument("--checkpoint_steps", type=int | None, default=None, help="Steps between checkpoints within an epoch.")
        parser.add_argument("--allow_changes", type=bool, default=False, help="Continue a run although its config has changed.")
        for name in self.linked:
            parser.link_arguments("data", f"model.{name}", compute_fn=partial(self._taken_from_data, name=name), apply_on="instantiate")

    def _taken_from_data(self, data: Any, name: str) -> Any:
        if name != "class_names":
            return getattr(data, name)
        # What is checked may have no classes to read; a model of any two has the same anchors.
        return ["class 1", "class 2"] if self.subcommand == "check" else list(data.class_names)

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        actions: Any = parser._subcommands_action
        for name, function in self.functions.items():
            function_parser = LightningArgumentParser()
            function_parser.add_function_arguments(function)
            actions.add_subcommand(name, function_parser, help=(function.__doc__ or "").splitlines()[0])
        summary = "Look for faults in the data set that `fit` would train on."
        self._subcommand_parsers["check"] = super()._prepare_subcommand_parser(L.Trainer, "fit", description=summary)
        actions.add_subcommand("check", self._subcommand_parsers["check"], help=summary)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand != "fit":
            parser.set_defaults({"verbose": False})  # the task prints its own table
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the command line after putting the config in that it left out.

        Raises:
            ValueError: a config contains itself, or is no text.
        """
        try:
            self.config = parser.parse_args(self._with_config(args))
        except RecursionError as error:
            raise ValueError(TOO_DEEP) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{value_of(args, '--config')}: {NO_TEXT}: {error}") from error

    def _with_config(self, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.subcommands(), "check") or {"--help", "-h"} & set(args):
            return args
        if given := value_of(args, "--config") or value_of(args, "-c"):
            return [*args, *reset_backbone(args, Path(given))]
        config = self.default_config
        if checkpoint := value_of(args, "--ckpt_path"):
            run = run_folder_of(self._last_run(args) / "checkpoints" / "last.ckpt" if checkpoint == "last" else Path(checkpoint))
            if run is None and args[0] != "fit" and Path(checkpoint).is_file():
                return self._with_description(args, checkpoint)
            config = run / "config.yaml" if run else config
        return [args[0], "--config", str(config), *args[1:], *reset_backbone(args, config)]

    def _last_run(self, args: list[str]) -> Path:
        """The folder of the run that `--ckpt_path last` means where no config is given."""
        name = value_of(args, "--name") or yaml.safe_load(self.default_config.read_text())["name"]
        return latest_run_folder(Path(value_of(args, "--runs") or "runs") / self.task / name)

    def _with_description(self, args: list[str], checkpoint: str) -> list[str]:
        """Takes the model's settings from a file that has no run, before those of the command line."""
        if not any(arg == "--data" or arg.startswith("--data=") for arg in args):
            raise ValueError(
                f"{args[0]} of {checkpoint}, which belongs to no run, needs --data, such as tasks.{self.task}.data.{self.example}"
            )
        spec = dict(self.plain_model.described(load_checkpoint(checkpoint), checkpoint))
        given = {key: spec.pop(key) for key in self.linked}  # by the data; classes are its own
        added = [f"--data.{k}={json.dumps(v)}" for k, v in given.items() if k != "class_names" and not value_of(args, f"--data.{k}")]
        if not value_of(args, "--data.classes") and self._data_takes("classes", value_of(args, "--data")):
            added.append(f"--data.classes={json.dumps(given['class_names'])}")
        return [args[0], *(f"--model.{key}={json.dumps(value)}" for key, value in spec.items()), *args[1:], *added]

    def _data_takes(self, argument: str, class_path: str | None) -> bool:
        """Whether the data set of that path or bare name can be told a choice of classes."""
        name = (class_path or "").rpartition(".")[2]
        known = [cls for cls in self.data_class.__subclasses__() if cls.__name__ == name]
        return bool(known) and argument in inspect.signature(known[0]).parameters

    def _parse_ckpt_path(self) -> None:
        """Leaves the config alone: the module refuses a checkpoint that does not fit it."""

    def _set_seed(self) -> None:
        if self.subcommand in self.subcommands():
            super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Finds the run's folder and, for `--ckpt_path last`, its checkpoint."""
        if self.subcommand not in (*self.subcommands(), "check"):
            return
        config: Namespace = self.config[self.subcommand]
        base = Path(config.runs) / self.task / config.name
        checkpoint = config.get("ckpt_path")
        if self.subcommand == "check":
            self.run_folder = base / "check"
            leave_out_weights(config)
            return
        if checkpoint == "last":
            checkpoint = str(newest_checkpoint(latest_run_folder(base) / "checkpoints"))
        if checkpoint:
            found = load_checkpoint(checkpoint)  # refuses what is missing, damaged or could run code, before anything is built
            if self.subcommand == "fit" and "optimizer_states" not in found:
                raise ValueError(f"{checkpoint}: holds no state of a training run to continue; start from it by --model.weights instead")
        elif self.subcommand != "fit":
            raise ValueError(f"{self.subcommand} needs --ckpt_path, the checkpoint of a run")
        # Passed to the trainer below: config.yaml must repeat the run, not continue it.
        self.checkpoint, config.ckpt_path = checkpoint, None
        run = run_folder_of(Path(checkpoint)) if checkpoint else None
        if run and self.subcommand == "fit" and not re.fullmatch(rf"{re.escape(config.name)}(-\d+)?", run.name):
            raise ValueError(
                f"--ckpt_path belongs to the run {run.name}, not to {config.name}: leave --config and --name out to continue it"
            )
        allowed, config.allow_changes = config.allow_changes, False
        if run and self.subcommand == "fit":
            check_changes(run, self._parser("fit").dump(config, skip_none=False), allowed)
        if self.subcommand != "fit":
            self.run_folder = (run or base) / self.subcommand
            leave_out_weights(config)  # they are in the checkpoint, and their file may be gone
        elif processes.is_first_of_all():
            self.run_folder = run or new_run_folder(base)
        else:  # no matter whether it is there yet: only the first process writes
            self.run_folder = run or latest_run_folder(base)

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; `check` needs no trainer, functions none of them.

        Raises:
            ValueError: they cannot be built; one sentence says why, whatever was raised.
        """
        try:
            if self.subcommand in self.subcommands():
                keep_freed_memory()
                super().instantiate_classes()
            elif self.subcommand == "check":
                built = self.parser.instantiate_classes(self.config)
                self.datamodule, self.model = self._get(built, "data"), self._get(built, "model")
        except (OSError, MisconfigurationException):
            raise
        except ValueError as error:
            linked = isinstance(error.__cause__, ValueError | OSError) and "compute_fn" in str(error)
            said = str(error.__cause__ if linked else error).strip()  # what asking the data for its classes raised
            raise ValueError(reason_of(said) if "\n" in said else said) from error  # jsonargparse lists what else it has tried
        except Exception as error:  # classes of anybody's may raise anything
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"cannot be built with these settings: {type(error).__name__} {reason} (MOBILETAP_DEBUG=1 shows where)"
            ) from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> L.Trainer:
        if processes.is_first_of_all():
            self.run_folder.mkdir(parents=True, exist_ok=True)
        config["default_root_dir"] = str(self.run_folder)
        if config.get("plugins") is None:
            config["plugins"] = [CheckpointFiles()]
        own = list(config.get("callbacks") or [])
        if self.subcommand == "fit":
            if config.get("logger") in (None, True):
                config["logger"] = self._loggers()
            if config.get("enable_checkpointing") is not False:
                own += self._checkpointing()
            own += [StepTimes(), *([LearningRateMonitor("step")] if config["logger"] else [])]
        else:
            config["logger"] = config.get("logger") or False
        trainer = super()._instantiate_trainer(config | {"callbacks": own}, callbacks)
        if config.get("sync_batchnorm") and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
            raise ValueError("trainer.sync_batchnorm needs GPUs; leave it out, or set model.backbone.freeze_bn where weights are loaded")
        return trainer

    def _loggers(self) -> list[Any]:
        from lightning.pytorch.loggers import TensorBoardLogger

        board = TensorBoardLogger(str(self.run_folder.parent), self.run_folder.name, version="", default_hp_metric=False)
        return [board, CsvHistory(self.run_folder)]

    def _checkpointing(self) -> list[Callback]:
        folder = self.run_folder / "checkpoints"
        self.best = ModelCheckpoint(folder, "best", monitor=self.monitor, mode="max", enable_version_counter=False)
        config: Namespace = self.config["fit"]
        return [self.best, LastCheckpoint(folder, config.checkpoint_minutes, config.checkpoint_steps)]

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        return kwargs | {"ckpt_path": self.checkpoint}

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand in self.functions:
            self.functions[subcommand](**self.config[subcommand].as_dict())
        elif subcommand == "check":
            sys.exit(int(check(self.datamodule, self.model, self.run_folder, self.describe) > 0))
        else:
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        """Evaluates the best checkpoint, or the last weights where there is none, which writes the run's results."""
        if self.trainer.fast_dev_run or not self.trainer.limit_val_batches:  # type: ignore[attr-defined]
            return
        best = self.best.best_model_path if hasattr(self, "best") else None
        self.trainer.logger = None  # the history already has these figures, at the step of the best checkpoint
        self.trainer.validate(self.model, self.datamodule, ckpt_path=best or None, verbose=False)
