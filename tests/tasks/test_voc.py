"""Lists of a VOCdevkit."""

from pathlib import Path
from typing import Any

import pytest

from tasks import voc
from tasks.download import VOC_ARCHIVES
from tasks.voc import fetch_devkit, read_split, split_pairs


def test_pairs_keep_their_order() -> None:
    assert split_pairs(["2012/train_aug", "2007/trainval"]) == [("2012", "train_aug"), ("2007", "trainval")]
    assert split_pairs([]) == []


@pytest.mark.parametrize("split", ["trainval", "2012", "2012/a/b", ""])
def test_split_that_is_no_pair_is_named(split: str) -> None:
    with pytest.raises(ValueError, match=rf"split '{split}' is not possible; accepted: year/split, such as 2012/trainval"):
        split_pairs(["2012/train", split])


@pytest.mark.parametrize("content", ["a\nb\n", "a\r\nb\r\n", "a  1\nb -1", "\n a \n\nb\n\n"])
def test_first_words_of_lines_are_the_names(tmp_path: Path, content: str) -> None:
    lists = tmp_path / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_bytes(content.encode())
    assert read_split(str(tmp_path), "2012", "Segmentation", "val") == (tmp_path / "VOC2012", ["a", "b"])
    with pytest.raises(ValueError, match=r"VOC2012/ImageSets/Main/val\.txt: no such file; .* a VOCdevkit folder that holds VOC2012"):
        read_split(tmp_path, "2012", "Main", "val")


def test_archives_are_fetched_beside_the_devkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Path]] = []
    monkeypatch.setattr(voc, "fetch", lambda archives, root: calls.append((archives, root)))
    with pytest.raises(ValueError, match=r"root .*voc cannot be downloaded to; accepted: a folder named VOCdevkit"):
        fetch_devkit(tmp_path / "voc", VOC_ARCHIVES)
    fetch_devkit(tmp_path / "VOCdevkit", VOC_ARCHIVES[2:])
    assert calls == [(VOC_ARCHIVES[2:], tmp_path)]
