"""Pixels of odd shapes and kinds, given to networks that are used."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from backbones import MobileNetV2
from heads import ClassifierHead, DeepLabV3, Detections, SSDLite
from tasks.classify.model import Classifier
from tasks.detect.model import Detector
from tasks.model import TaskModel
from tasks.segment.model import Segmenter
from tests.fuzz.fuzzer import Fuzzer

NAMES = ("a", "b", "c")
SIDES = (0, 1, 2, 3, 7, 31, 32, 33, 65, 300)
LONGEST = 1500
KINDS = ("u1", "i1", "u2", "i8", "f2", "f4", "f8", "?", "O", "U3", "c8")


def models() -> dict[str, TaskModel]:
    """A small network of each task, and a segmenter whose window slides."""
    torch.manual_seed(0)
    small = partial(MobileNetV2, width_mult=0.1)
    return {
        "detect": Detector(small(), SSDLite, NAMES, (64, 64)),
        "segment": Segmenter(small(output_stride=16), DeepLabV3, NAMES, (33, 65)),
        "slide": Segmenter(small(output_stride=16), DeepLabV3, NAMES, (97, 97), scales=(0.5, 1.0), flip=True, sliding=True),
        "classify": Classifier(small(), ClassifierHead, NAMES, (48, 32)),
    }


@st.composite
def pixels(draw: DrawFn) -> Any:
    """Images, most of them of a kind that cannot be taken."""
    if draw(st.booleans()):  # that can
        kind, last = "u1", (3,)
        shape = draw(st.sampled_from([(1, LONGEST), (LONGEST, 1), (2, LONGEST)]) | st.tuples(*[st.sampled_from(SIDES)] * 2))
    else:
        kind = draw(st.sampled_from(KINDS))
        shape, last = draw(st.lists(st.sampled_from(SIDES[:6]), max_size=4).map(tuple)), draw(st.sampled_from([(), (1,), (3,), (4,)]))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, size=(*shape, *last)).astype("u1").astype(kind)
    if kind.startswith("f") and draw(st.booleans()):
        values[...] = draw(st.sampled_from((np.nan, np.inf, -1, 0.5)))
    look = draw(st.sampled_from(("as is", "mirrored", "read only", "list", "tensor", "transposed")))
    match look:
        case "mirrored" if values.ndim > 1:
            values = values[:, ::-1]
        case "transposed":
            values = values.T
        case "read only":
            values.flags.writeable = False
        case "list" if values.size < 5000:
            return values.tolist()
        case "tensor" if values.dtype.kind in "uif?" and values.dtype != "u2":
            return torch.from_numpy(values.copy())
    return values


def check(found: Any, image: Any) -> None:
    """Whatever was taken, what was found is of that image."""
    height, width = np.shape(image)[:2]
    if isinstance(found, Detections):
        assert len(found.boxes) == len(found.scores) == len(found.labels)
        limits = torch.tensor([width, height, width, height])
        assert ((found.boxes >= 0) & (found.boxes <= limits)).all()
    elif found.ndim == 2:
        assert found.shape == (height, width)
        assert int(found.max()) < len(NAMES)
    else:
        assert isinstance(found, Tensor)
        assert torch.isclose(found.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("name", ["detect", "segment", "slide", "classify"])
def test_pixels(name: str, fuzz: Fuzzer) -> None:
    model: Any = models()[name]
    corpus = [None, 3, "no/such.jpg", "", b"bytes", [], {}, np.zeros((1, 1, 3), "u1"), np.zeros((70, LONGEST, 3), "u1")]
    fuzz(lambda image: check(model.predict(image), image), pixels(), corpus, quick=12, slow=300)
