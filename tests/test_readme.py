"""Every command of the README parses, and its Python runs as far as it can without training."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tasks import cli
from tasks.detect.__main__ import main

README = (Path(__file__).parents[1] / "README.md").read_text()
CONFIGS = Path(__file__).parents[1] / "configs"


def commands() -> list[list[str]]:
    """The arguments of every `python -m tasks.detect` in the README and in the configs' headers."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    headers = [path.read_text().split("\nname:")[0].replace("# Command:", "").replace("\n#", "\n") for path in CONFIGS.rglob("*.yaml")]
    lines = "\n".join([*blocks, *headers]).replace("\\\n", " ").splitlines()
    return [shlex.split(line.split("python -m tasks.detect ", 1)[1]) for line in lines if "python -m tasks.detect " in line]


@pytest.mark.parametrize("command", commands(), ids=lambda c: " ".join(c)[:70])
def test_command_parses(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.chdir(CONFIGS.parent)
    monkeypatch.setattr(cli.TaskCLI, "before_instantiate_classes", lambda self: None)
    monkeypatch.setattr(cli.TaskCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(cli.TaskCLI, "_run_subcommand", lambda self, subcommand: ran.append(subcommand))
    main([part for part in command if part != "&&"])
    assert ran == [command[0]]


def test_readme_has_both_setup_commands() -> None:
    for mark in ("main", "tests"):
        block = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)```", README, re.S)
        assert block
        assert "pip install" in block[1]


def test_files_that_the_readme_links_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (CONFIGS.parent / link).exists(), link


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from backbones import MobileNetV2
    from heads import SSDLite
    from tasks.detect.model import Detector
    from tasks.labels import VOC_CLASSES

    monkeypatch.chdir(tmp_path)
    Detector(MobileNetV2(width_mult=0.35), SSDLite, VOC_CLASSES, (96, 96)).save("best.ckpt")
    Image.new("RGB", (64, 48)).save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(re.sub(r'"[^"]*best\.ckpt"', '"best.ckpt"', block), {})
