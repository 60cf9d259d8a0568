"""Stands in for a training: takes the same arguments and leaves the same files, in no time."""

import json
import sys
import time
from pathlib import Path

import yaml

_, _, task, _, *flags = sys.argv
values = dict(zip(flags[::2], flags[1::2], strict=False))
config = yaml.safe_load(Path(values["--config"]).read_text())
given = [flag for flag in flags if flag.startswith("--trainer.")]
rest = [flag for flag in flags if flag not in given]
values = dict(zip(rest[::2], rest[1::2], strict=True))
folder = Path(values["--runs"]) / task / values["--name"]
with (Path(values["--runs"]) / "calls.txt").open("a") as calls:
    calls.write(f"{task} {values['--name']} {values.get('--ckpt_path', 'anew')}\n")
if values["--name"].startswith("broken"):
    print("a line before")
    sys.exit("error: the loss became nan at step 3")
folder.mkdir(parents=True, exist_ok=True)
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "config.yaml").write_text(yaml.safe_dump(config))
(folder / "checkpoints" / "last.ckpt").write_text("checkpoint")
if values["--name"].startswith("slow") and "--ckpt_path" not in values:
    time.sleep(60)
seed = config["seed_everything"]
(folder / "metrics.csv").write_text("step,epoch,train/loss,val/AP,val/mIoU\n0,0,3.5,,\n9,0,2.5,0.1,0.2\n19,1,1.5,0.3,0.4\n")
(folder / "metrics.json").write_text(json.dumps({"val/AP": 0.3 + seed / 100, "val/AP50": 0.5, "val/mIoU": 0.6 + seed / 100, "images": 8}))
