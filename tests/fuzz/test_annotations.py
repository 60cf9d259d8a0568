"""Annotation files: COCO's JSON with odd values in it and damaged bytes, VOC's XML, lists of names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tasks.classify.annotations import from_folders
from tasks.detect.annotations import BoxAnnotations, from_voc
from tasks.detect.annotations import from_coco as boxes_of_coco
from tasks.segment.annotations import MaskAnnotations
from tasks.segment.annotations import from_coco as masks_of_coco
from tests.fuzz.cases import damaged, spoiled
from tests.fuzz.fuzzer import Fuzzer

RUNS = {"size": [40, 60], "counts": [0, 900, 1500]}
COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "猫.jpg", "width": 60, "height": 40}, {"id": 8, "file_name": "b.jpg", "width": 30, "height": 20}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 30, 20.5], "segmentation": [[1, 1, 20, 1, 20, 20]], "area": 200.0},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [3, 3, 9, 9], "segmentation": RUNS, "iscrowd": 1, "area": 9},
        {"id": 3, "image_id": 8, "category_id": 2, "bbox": [0, 0, 9, 9], "segmentation": {"size": [20, 30], "counts": [100, 500]}},
    ],
    "categories": [{"id": 2, "name": "person"}, {"id": 5, "name": "naïve"}],
}
JSON_CORPUS = [
    *(b"", b"\xff\xfe", b"null", b"[]", b"1e999", b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"', b"\xef\xbb\xbf{}", b"1" * 5000),
    json.dumps(COCO).encode(),
    json.dumps(COCO).replace('"id":', '"id": 3, "id":').encode(),  # the last of two equal keys counts
    json.dumps(COCO | {"images": COCO["images"] * 2}).encode(),
    json.dumps(COCO | {"categories": COCO["categories"] * 2}).encode(),
    json.dumps(COCO | {"images": [], "annotations": []}).encode(),
    json.dumps(COCO | {"annotations": []}).encode("utf-16"),
]
BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
OBJECT = f"<object><name>cat</name><difficult>0</difficult>{BOX}</object>"
VOC = f"<annotation><size><width>60</width><height>40</height></size>{OBJECT}</annotation>"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12))
ODD_TEXT = ("", " ", "nan", "-inf", "1e999", "9" * 400, "1_0", "٣", "0x10", "猫", "&lt;", "<a/>", "<!-- -->2", "&l11;")


@st.composite
def json_files(draw: DrawFn) -> bytes:
    """COCO's format with odd values, as the bytes of a file."""
    text = json.dumps(draw(spoiled(COCO)), ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def check_boxes(read: BoxAnnotations) -> None:
    """What training takes for granted."""
    assert len(read.files) == len(read.sizes) == len(read.image_ids) == len(read.offsets) - 1
    assert np.isfinite(read.boxes).all()
    assert (read.boxes[:, 2:] > read.boxes[:, :2]).all()
    assert read.labels.size == 0 or 1 <= read.labels.min() <= read.labels.max() <= len(read.class_names)
    assert (read.sizes >= 0).all()


def check_masks(read: MaskAnnotations) -> None:
    """What training takes for granted."""
    for index in range(len(read)):
        mask = read.mask(index)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask).tolist()) <= {*range(len(read.class_names)), 255}


@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_boxes_of_coco(kind: str, fuzz: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        check_boxes(boxes_of_coco(path, tmp_path))

    fuzz(read, json_files() if kind == "values" else damaged(json.dumps(COCO).encode()), JSON_CORPUS, path.name, quick=80, slow=2000)


@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_masks_of_coco(kind: str, fuzz: Fuzzer, tmp_path: Path) -> None:
    path = tmp_path / "masks.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        check_masks(masks_of_coco(path, tmp_path, voc_labels=False))
        masks_of_coco(path, tmp_path, voc_labels=True, min_pixels=10)

    fuzz(read, json_files() if kind == "values" else damaged(json.dumps(COCO).encode()), JSON_CORPUS, path.name, quick=80, slow=2000)


def write_devkit(root: Path) -> tuple[Path, Path]:
    """A VOCdevkit of one image: its annotation and the list of images."""
    folder = root / "VOC2012"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("one\n")
    return folder / "Annotations/one.xml", folder / "ImageSets/Main/train.txt"


def test_voc(fuzz: Fuzzer, tmp_path: Path) -> None:
    path, _ = write_devkit(tmp_path)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        check_boxes(from_voc(tmp_path, [("2012", "train")]))

    texts = [VOC.replace(old, new) for old in (">2<", ">60<", ">cat<", ">0<") for new in (f">{text}<" for text in ODD_TEXT)]
    corpus = [
        *(f"<!DOCTYPE a [{LAUGHS}]>{text}".encode() for text in texts),
        *(f'<!DOCTYPE a [<!ENTITY l11 SYSTEM "file:///etc/passwd">]>{text}'.encode() for text in texts[-1:]),
        *(f'<?xml version="1.0" encoding="{name}"?>{VOC}'.encode() for name in ("latin1", "utf-16", "utf-7", "no-such", "rot13", "idna")),
        *(VOC.encode(name) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-32")),
        *(b"", b"<a" * 10_000, b"<a>" * 20_000 + b"</a>" * 20_000, b"\x00" * 100),
    ]
    fuzz(read, damaged(VOC.encode()), corpus, path.name, quick=80, slow=2000)


def test_list_of_a_split(fuzz: Fuzzer, tmp_path: Path) -> None:
    annotation, path = write_devkit(tmp_path)
    annotation.write_text(VOC)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        from_voc(tmp_path, [("2012", "train")])

    corpus = [b"", b"\n \n", b"one 1\r\none -1", b"\xff\xfeo\x00", b"a" * 300, b"../../x", b"/", b"\x00"]
    fuzz(read, damaged(b"one\none 1\n"), corpus, "/", quick=40, slow=1000)


def test_class_names_of_folders(fuzz: Fuzzer, tmp_path: Path) -> None:
    for name in ("猫", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.jpg").touch()
    path = tmp_path / "names.txt"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert len(from_folders(tmp_path / "images", path).class_names) == 2

    fuzz(read, damaged("häuser\ncats\n".encode()), [b"", b"\xff\n\xff", b"a\na", "a\u2028b".encode()], path.name, quick=40, slow=1000)
