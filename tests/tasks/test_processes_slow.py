"""Runs of several processes as users start them: a process that is lost, an error in one of them, signals, torchrun, sets of all sizes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tasks.crew import Crew
from tests.tasks.nursery import FLAGS, NAMES, OWN, differences, run_of

ROOT = Path(__file__).parents[2]
SEVERAL = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
# Beside three seconds of import and a few steps; a slow machine may take longer for these.
MINUTE = 60

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("crew")) as started:
        yield started


@pytest.fixture(scope="module")
def whole(crew: Crew, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes."""
    runs = tmp_path_factory.mktemp("whole")
    assert crew.run(2, *_fit(shapes_root, runs)) == [0, 0], crew.said(0)
    return run_of(runs, "classify")


def _fit(shapes_root: Path, runs: Path) -> list[str]:
    return ["classify", "fit", *FLAGS, *OWN["classify"], f"--data.root={shapes_root}", f"--runs={runs}", "--data.num_workers=1"]


def _left(runs: Path) -> list[str]:
    """Processes that still have the run in their command line."""
    found = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_readable(path)]
    return [line.replace(b"\0", b" ").decode() for line in found if f"--runs={runs}".encode() in line]


def _is_readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize(
    ("rank", "kind", "code", "message"),
    [
        (1, "SIGKILL", 1, "error: the process of rank 1 (0 to 1) was killed by SIGKILL"),
        (0, "SIGKILL", -signal.SIGKILL, "error: the process that started this run was killed"),
        (1, "error", 1, "error: picture 7"),
        (0, "error", 1, "error: picture 7"),
        (1, "nan", 1, "error: the loss became nan at step 4 (class nan); the images were"),
        (1, "bug", 1, "RuntimeError: nobody expected this"),
        (0, "SIGTERM", 128 + signal.SIGTERM, "stopped at step 5; --ckpt_path last goes on from here"),
        (1, "SIGTERM", 128 + signal.SIGTERM, "stopped at step 5; --ckpt_path last goes on from here"),
    ],
)
def test_one_process_fails(
    rank: int, kind: str, code: int, message: str, whole: Path, crew: Crew, shapes_root: Path, tmp_path: Path
) -> None:
    fit = _fit(shapes_root, tmp_path)
    fault = {"FAULT": json.dumps({"rank": rank, "event": "step", "number": 5, "kind": kind})}
    begin, output = time.monotonic(), tmp_path / "output"
    with output.open("w") as screen:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.tasks.crew", *fit, *SEVERAL], env=ENVIRONMENT | fault, stderr=screen, cwd=ROOT, timeout=3 * MINUTE
        )
        while _left(tmp_path) and time.monotonic() - begin < 3 * MINUTE:
            time.sleep(0.2)
    assert ended.returncode == code
    assert _left(tmp_path) == []
    assert time.monotonic() - begin < MINUTE  # from its start on, which is before the fault
    said = output.read_text()
    assert said.count(message) == 1, said
    assert said.count("error: ") == (0 if kind in ("bug", "SIGTERM") else 1)
    assert said.count("Traceback") == (kind == "bug")
    assert crew.run(2, *fit, "--ckpt_path=last") == [0, 0], crew.said(0)
    assert differences(run_of(tmp_path, "classify"), whole) == []


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL])
def test_signal_to_all_processes(name: signal.Signals, whole: Path, crew: Crew, shapes_root: Path, tmp_path: Path) -> None:
    fit, last = _fit(shapes_root, tmp_path), run_of(tmp_path, "classify") / "checkpoints/last.ckpt"
    command = [sys.executable, "-m", "tasks.classify", *fit[1:], *SEVERAL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT, start_new_session=True) as started:
        while not last.is_file():
            time.sleep(0.01)
            assert started.poll() is None
        os.killpg(started.pid, name)
        said = started.communicate()[1]
    assert started.returncode == (143 if name == signal.SIGTERM else -signal.SIGKILL)
    assert said.count("--ckpt_path last goes on from here") == (name == signal.SIGTERM)
    assert "Traceback" not in said
    assert crew.run(2, *fit, "--ckpt_path=last") == [0, 0], crew.said(0)
    assert differences(last.parent.parent, whole) == []


def test_torchrun_does_the_same(whole: Path, shapes_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "tasks.classify"]
    args = [*command, *_fit(shapes_root, tmp_path)[1:], *SEVERAL]
    for name in ("", "-2"):
        ended = subprocess.run(args, env=ENVIRONMENT, cwd=ROOT, timeout=3 * MINUTE, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("results are in") == 1
        run = run_of(tmp_path, "classify")
        assert differences(run.with_name(run.name + name), whole) == []
    assert sorted(path.name for path in run.parent.iterdir()) == [run.name, f"{run.name}-2"]


@pytest.mark.parametrize("images", [1, 2, 7, 13])
@pytest.mark.parametrize("task", NAMES)
def test_figures_equal_those_of_one_process(task: str, images: int, crew: Crew, shapes_root: Path, tmp_path: Path) -> None:
    common = [*OWN[task], f"--data.root={shapes_root}", f"--data.val_images={images}"]
    fit = [task, "fit", *FLAGS, *common, f"--runs={tmp_path}", "--trainer.max_epochs=1"]
    assert crew.run(2, *fit) == [0, 0], crew.said(0)
    run = run_of(tmp_path, task)
    found = [(run / "metrics.json").read_text()]
    for ranks in (1, 2, 3):
        assert crew.run(ranks, task, "validate", f"--ckpt_path={run}/checkpoints/best.ckpt", "--data.batch_size=2") == [0] * ranks
        found.append((run / "validate/metrics.json").read_text())
        if task != "detect":
            assert (run / "validate/confusion.csv").read_bytes() == (run / "confusion.csv").read_bytes()
    assert found == [found[0]] * 4


@pytest.mark.parametrize("task", NAMES)
def test_fewer_images_than_processes(task: str, crew: Crew, shapes_root: Path, tmp_path: Path) -> None:
    few = ["--data.train_images=1", "--data.val_images=1", "--trainer.max_epochs=1"]
    assert crew.run(3, task, "fit", *FLAGS, *OWN[task], *few, f"--data.root={shapes_root}", f"--runs={tmp_path}") == [0] * 3, crew.said(0)
    assert json.loads((run_of(tmp_path, task) / "metrics.json").read_text())["images"] == 1
