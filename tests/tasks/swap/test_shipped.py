"""Every shipped experiment can be run as it stands."""

from pathlib import Path

import pytest

from tasks.swap import __main__ as command
from tasks.swap.__main__ import main

EXPERIMENTS = sorted((Path(__file__).resolve().parents[3] / "configs" / "swap").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_network_of_an_experiment_can_be_built(path: Path, tmp_path: Path) -> None:
    main(["--config", str(path), "--runs", str(tmp_path), "--report_only", "true"])
    table = (tmp_path / "swap" / path.stem / "table.md").read_text()
    assert "has not run yet" in table
    assert "All tasks" in table


def test_default_is_shipped() -> None:
    assert command.DEFAULT in EXPERIMENTS
