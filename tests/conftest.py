"""What several tests need."""

import os
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Lightning still calls what jsonargparse 5 will drop, hence jsonargparse<5.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# Several workers (`pytest -n 2`) would each compute with as many threads as there are cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights beside the project; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real images and weights are not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which small variants of the built-in data set are drawn once a session."""
    return tmp_path_factory.mktemp("shapes")
