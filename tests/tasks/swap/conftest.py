"""What the tests of swap experiments share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
DETECT = CONFIGS / "detect/ssdlite_mobilenet_v2_shapes.yaml"


def small(name: str, **more: Any) -> dict[str, Any]:
    """A small backbone of an experiment."""
    return {"name": name, "class_path": "backbones.MobileNetV2", "init_args": {"width_mult": 0.1}, **more}


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., str]:
    """Writes an experiment file of one small backbone, one task and one seed, with changes."""

    def write(**changes: Any) -> str:
        content = {
            "name": "trial",
            "tasks": {"detect": {"config": str(DETECT), "overrides": {"data.size": [64, 64]}}},
            "backbones": [small("one")],
            "seeds": [0],
            "devices": "cpu",
            "latency": {"repeats": 0},
            "runs": str(tmp_path / "runs"),
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return str(path)

    return write
