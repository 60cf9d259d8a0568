"""Every command of the README parses, and its Python runs as far as it can without training."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from tasks import cli
from tasks.bench.__main__ import make_parser as bench_parser
from tasks.classify.__main__ import main as classify
from tasks.convert import convert
from tasks.cost.__main__ import make_parser
from tasks.detect.__main__ import main as detect
from tasks.segment.__main__ import main as segment
from tasks.swap.__main__ import DEFAULT
from tasks.swap.__main__ import make_parser as swap_parser

MAINS = {"detect": detect, "segment": segment, "classify": classify}
README = (Path(__file__).parents[1] / "README.md").read_text()
CONFIGS = Path(__file__).parents[1] / "configs"


def commands() -> list[tuple[str, list[str]]]:
    """Module and arguments of every `python -m tasks.<module>` in the README and in the configs' headers."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    headers = [path.read_text().split("\nname:")[0].replace("# Command:", "").replace("\n#", "\n") for path in CONFIGS.rglob("*.yaml")]
    text = "\n".join([*blocks, *headers]).replace("\\\n", " ")
    return [(module, shlex.split(args)) for module, args in re.findall(r"python -m tasks\.(\w+)[ ]*([^\n&|]*)", text)]


def own_files(folder: Path) -> Path:
    """Writes the files that the README tells to save."""
    for name, mark in (("ownnet.py", "own backbone"), ("plainnet.py", "own module"), ("mine.yaml", "own experiment")):
        (folder / name).write_text(re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.S)[0])
    return folder


@pytest.mark.parametrize(("module", "args"), commands(), ids=lambda part: part if isinstance(part, str) else " ".join(part)[:70])
def test_command_parses(module: str, args: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[Any] = []
    monkeypatch.chdir(CONFIGS.parent)
    monkeypatch.syspath_prepend(str(own_files(tmp_path)))
    if module == "convert":
        parser = ArgumentParser()
        parser.add_function_arguments(convert, as_positional=True)
        parser.parse_args(args)
        return
    if module == "cost":
        make_parser().parse_args(args)
        return
    if module == "bench":
        bench_parser().parse_args(args)
        return
    if module == "swap":
        files = [str(tmp_path / arg) if (tmp_path / arg).is_file() else arg for arg in args]
        swap_parser().parse_args(["--config", str(DEFAULT), *files])
        return
    monkeypatch.setattr(cli.TaskCLI, "before_instantiate_classes", lambda self: None)
    monkeypatch.setattr(cli.TaskCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(cli.TaskCLI, "_run_subcommand", lambda self, subcommand: ran.append(subcommand))
    MAINS[module](args)
    assert ran == [args[0]]


def test_both_tasks_have_commands() -> None:
    assert set(MAINS) <= {module for module, _ in commands()}


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
    from heads import DeepLabV3, SSDLite
    from tasks.detect.model import Detector
    from tasks.labels import VOC_CLASSES, VOC_MASK_CLASSES
    from tasks.segment.model import Segmenter

    monkeypatch.chdir(tmp_path)
    Detector(MobileNetV2(width_mult=0.35), SSDLite, VOC_CLASSES, (96, 96)).save("Detector.ckpt")
    Segmenter(MobileNetV2(["layer18"], width_mult=0.35), DeepLabV3, VOC_MASK_CLASSES, (65, 65)).save("Segmenter.ckpt")
    for name in ("photo.jpg", "another.jpg"):
        Image.new("RGB", (64, 48)).save(name)
    blocks = re.findall(r"(?<!-->\n)```python\n(.*?)```", README, re.S)  # files to save have a mark before them
    assert blocks
    for block in blocks:
        exec(re.sub(r'(\w+)\.from_checkpoint\("[^"]*"\)', r'\1.from_checkpoint("\1.ckpt")', block), {})
