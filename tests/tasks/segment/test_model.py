"""The plain segmenter: inputs, prediction in all its ways, and files that rebuild it."""

import itertools
import json
import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from backbones import MobileNetV2
from heads import LRASPP, DeepLabV3, SmpDecoder, SSDLite
from tasks.detect.model import Detector
from tasks.segment.model import Segmenter, windows

NAMES = ("background", "cat", "dog", "owl")
SIZE = (65, 97)

both_alignments = pytest.mark.parametrize("align_corners", [False, True])


def make(
    head: Any = partial(DeepLabV3, channels=16), taps: Any = ("layer18",), output_stride: int = 16, names: Any = NAMES, **options: Any
) -> Segmenter:
    backbone = MobileNetV2(taps, width_mult=0.35, output_stride=output_stride)
    segmenter = Segmenter(backbone, head, names, **{"size": SIZE, **options}).eval()
    if isinstance(segmenter.head, DeepLabV3):
        spread(segmenter)
    return segmenter


@torch.no_grad()
def spread(segmenter: Segmenter) -> None:
    """Moves and stretches the logits of a new head, which are almost even, so that every class is somewhere the best."""
    last = segmenter.head.logits
    torch.nn.init.normal_(last.weight)
    logits = segmenter(picture(*SIZE)[None])
    last.weight /= logits.std(dim=(0, 2, 3)).view(-1, 1, 1, 1)
    last.bias.copy_(-segmenter(picture(*SIZE)[None]).mean(dim=(0, 2, 3)))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return make()


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth (3, height, width) uint8 image, so that maps have areas."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (height, width), mode="bilinear") * 255)[0].to(torch.uint8)


def agree(found: Tensor, scores: Tensor, share: float = 0.9) -> None:
    """Compares classes with those of (K, H, W) scores, except where the best two are equal but for rounding."""
    assert found.dtype == torch.uint8
    assert found.shape == scores.shape[1:]
    best = scores.topk(2, dim=0)
    clear = best.values[0] - best.values[1] > 1e-4
    assert clear.float().mean() > share
    assert torch.equal(found[clear], best.indices[0][clear].to(torch.uint8))


def cells_of(segmenter: Segmenter, pixels: Tensor) -> Tensor:
    return segmenter.head(segmenter.backbone(pixels), tuple(pixels.shape[2:]))


def padded(segmenter: Segmenter, image: Tensor, size: tuple[int, int] = SIZE) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = torch.zeros(1, 3, *size)
    pixels[0, :, : image.shape[1], : image.shape[2]] = (image / 255 - mean) / std
    return pixels


def probabilities(segmenter: Segmenter, pixels: Tensor, scales: tuple[float, ...], flip: bool) -> Tensor:
    """Softmax of each look at the image, upsampled and then averaged."""
    align, (height, width) = segmenter.head.align_corners, pixels.shape[2:]
    found = []
    for scale in scales:
        size = (round((height - 1) * scale) + 1, round((width - 1) * scale) + 1)
        scaled = F.interpolate(pixels, size, mode="bilinear", align_corners=align)
        for mirrored in [False, True][: 1 + flip]:
            cells = cells_of(segmenter, scaled.flip(3) if mirrored else scaled)
            whole = F.interpolate(cells, (height, width), mode="bilinear", align_corners=align).softmax(1)
            found.append(whole.flip(3) if mirrored else whole)
    return torch.stack(found).mean(dim=0)[0]


@pytest.mark.parametrize("size", [(321, 481), (97, 33), (65, 65), (16, 16), (7, 5), (1, 1)])
@torch.no_grad()
def test_logits_have_the_size_of_the_input(segmenter: Segmenter, size: tuple[int, int]) -> None:
    logits = segmenter(torch.rand(2, 3, *size))
    assert logits.shape == (2, 4, *size)
    assert logits.isfinite().all()


@torch.no_grad()
def test_uint8_and_float_images_agree(segmenter: Segmenter) -> None:
    images = torch.randint(256, (2, 3, 65, 97), dtype=torch.uint8)
    assert torch.equal(segmenter(images), segmenter(images.float() / 255))


@both_alignments
@torch.no_grad()
def test_logits_equal_upsampled_cells(align_corners: bool) -> None:
    segmenter = make(partial(DeepLabV3, channels=16, align_corners=align_corners))
    pixels = padded(segmenter, picture(*SIZE))
    expected = F.interpolate(cells_of(segmenter, pixels), SIZE, mode="bilinear", align_corners=align_corners)
    assert_close(segmenter(picture(*SIZE)[None]), expected, rtol=1e-4, atol=1e-4)


@both_alignments
@pytest.mark.parametrize("size", [(65, 97), (65, 20), (33, 97), (40, 51), (1, 1)])
@torch.no_grad()
def test_map_equals_a_plain_computation(size: tuple[int, int], align_corners: bool) -> None:
    segmenter = make(partial(DeepLabV3, channels=16, align_corners=align_corners))
    image = picture(*size)
    logits = F.interpolate(cells_of(segmenter, padded(segmenter, image)), SIZE, mode="bilinear", align_corners=align_corners)
    agree(segmenter.segment([image])[0], logits[0, :, : size[0], : size[1]])


def test_maps_have_several_classes(segmenter: Segmenter) -> None:
    # Else the comparisons here would say little.
    assert segmenter.segment([picture(*SIZE)])[0].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("looks", [{}, {"scales": (0.5, 1.0), "flip": True}, {"sliding": True}], ids=["whole", "scales", "sliding"])
def test_images_of_several_sizes_in_one_batch_equal_one_at_a_time(looks: dict[str, Any]) -> None:
    segmenter = make(**looks)
    images = [picture(height, width, seed) for seed, (height, width) in enumerate([(65, 97), (20, 31), (130, 90), (97, 65), (3, 200)])]
    together = segmenter.segment(images)
    assert [found.shape for found in together] == [image.shape[1:] for image in images]
    for found, image in zip(together, images, strict=True):
        (alone,) = segmenter.segment([image])
        assert (found == alone).float().mean() > 0.995  # convolutions of batches round differently


@pytest.mark.parametrize("size", [(130, 194), (65, 400), (300, 50), (66, 97), (1, 500)])
@torch.no_grad()
def test_larger_images_are_reduced_and_come_back_at_their_own_size(segmenter: Segmenter, size: tuple[int, int]) -> None:
    image = picture(*size)
    (found,) = segmenter.segment([image])
    share = min(65 / size[0], 97 / size[1])
    content = (max(round(size[0] * share), 1), max(round(size[1] * share), 1))
    reduced = F.interpolate(image[None].float(), content, mode="bilinear", antialias=True)[0].round().to(torch.uint8)
    logits = F.interpolate(cells_of(segmenter, padded(segmenter, reduced)), SIZE, mode="bilinear")[:, :, : content[0], : content[1]]
    expected = F.interpolate(logits, size, mode="bilinear").argmax(dim=1)[0]
    assert found.shape == size
    assert (found == expected).float().mean() > 0.97  # in one step from cells to pixels, not in two


@both_alignments
@pytest.mark.parametrize(("scales", "flip"), [((0.5, 0.75, 1.25), True), ((0.5,), False), ((1.0,), True), ((1.0, 1.0), False)], ids=str)
@torch.no_grad()
def test_several_looks_equal_averaged_probabilities(scales: tuple[float, ...], flip: bool, align_corners: bool) -> None:
    segmenter = make(partial(DeepLabV3, channels=16, align_corners=align_corners), scales=scales, flip=flip)
    image = picture(50, 97)
    agree(segmenter.segment([image])[0], probabilities(segmenter, padded(segmenter, image), scales, flip)[:, :50])


def test_probabilities_of_one_look_give_the_map_of_its_logits(segmenter: Segmenter) -> None:
    twice = make(scales=(1.0, 1.0))
    twice.load_state_dict(segmenter.state_dict())
    for size in ((65, 97), (50, 33)):
        assert (twice.segment([picture(*size)])[0] == segmenter.segment([picture(*size)])[0]).float().mean() > 0.999


def test_flipped_looks_at_a_mirrored_image_give_the_mirrored_map() -> None:
    segmenter = make(flip=True)
    image = picture(65, 97)  # as wide as the input, so that padding is on no side
    assert (segmenter.segment([image.flip(2)])[0].flip(1) == segmenter.segment([image])[0]).float().mean() > 0.999


@pytest.mark.parametrize("window", [(65, 97), (3, 4), (1, 1), (2, 7), (513, 513)])
@pytest.mark.parametrize("extra", [(0, 0), (1, 0), (40, 100), (130, 1), (7, 3)])
def test_windows_cover_the_area_and_overlap_by_a_third(window: tuple[int, int], extra: tuple[int, int]) -> None:
    size = (window[0] + extra[0], window[1] + extra[1])
    found = list(windows(size, window))
    covered = np.zeros(size, dtype=int)
    for rows, columns in found:
        assert 0 <= rows.start <= rows.stop - window[0] == rows.start
        assert 0 <= columns.start <= columns.stop - window[1] == columns.start
        assert rows.stop <= size[0]
        assert columns.stop <= size[1]
        covered[rows, columns] += 1
    assert covered.min() > 0
    assert len(set(map(str, found))) == len(found)
    for side, starts in zip(window, (sorted({pair[axis].start for pair in found}) for axis in (0, 1)), strict=True):
        assert all(later - earlier <= max(side - side // 3, 1) for earlier, later in itertools.pairwise(starts))
    if extra == (0, 0):
        assert len(found) == 1


@both_alignments
def test_one_window_equals_the_whole_image(align_corners: bool) -> None:
    whole, sliding = (make(partial(DeepLabV3, channels=16, align_corners=align_corners), sliding=sliding) for sliding in (False, True))
    sliding.load_state_dict(whole.state_dict())
    for size in ((65, 97), (30, 97), (10, 11)):
        assert (sliding.segment([picture(*size)])[0] == whole.segment([picture(*size)])[0]).float().mean() > 0.999


@pytest.mark.parametrize("size", [(130, 150), (66, 40), (20, 200)])
@torch.no_grad()
def test_sliding_equals_averaged_windows(size: tuple[int, int]) -> None:
    segmenter = make(sliding=True, flip=True)
    image = picture(*size)
    area = (max(size[0], 65), max(size[1], 97))
    pixels = padded(segmenter, image, area)
    total, counts = torch.zeros(4, *area), torch.zeros(area)
    for rows, columns in windows(area, SIZE):
        total[:, rows, columns] += probabilities(segmenter, pixels[:, :, rows, columns], (1.0,), True)
        counts[rows, columns] += 1
    agree(segmenter.segment([image])[0], (total / counts)[:, : size[0], : size[1]])


@torch.no_grad()
def test_maps_of_the_same_logits_are_the_same_under_autocast(segmenter: Segmenter) -> None:
    logits, sizes = torch.randn(2, 4, 5, 7), torch.tensor([[65, 97], [33, 40]])
    plain = segmenter.head.postprocess(logits, SIZE, sizes, sizes * 2)
    with torch.autocast("cpu", torch.bfloat16):
        cast = segmenter.head.postprocess(logits, SIZE, sizes, sizes * 2)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize("looks", [{}, {"scales": (0.5, 1.0), "flip": True}, {"sliding": True}], ids=["whole", "scales", "sliding"])
def test_maps_come_under_autocast(looks: dict[str, Any]) -> None:
    segmenter, image = make(**looks), picture(80, 97)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = segmenter.segment([image])
    assert (found == segmenter.segment([image])[0]).float().mean() > 0.9


def test_file_and_pixels_give_the_same_map(segmenter: Segmenter, tmp_path: Path) -> None:
    pixels = picture(80, 61).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = segmenter.predict(pixels)
    assert found.shape == (80, 61)
    assert torch.equal(found, segmenter.predict(tmp_path / "a.png"))
    assert torch.equal(found, segmenter.predict(str(tmp_path / "a.png")))
    assert torch.equal(found, segmenter.segment([picture(80, 61)])[0])


def test_file_is_turned_as_exif_says(segmenter: Segmenter, tmp_path: Path) -> None:
    pixels, exif = picture(50, 80).permute(1, 2, 0).contiguous().numpy(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = segmenter.predict(tmp_path / "turned.png")
    assert found.shape == (80, 50)
    assert torch.equal(found, segmenter.predict(np.ascontiguousarray(np.rot90(pixels, -1))))


@pytest.mark.parametrize("view", ["turned", "bgr", "read-only"])
def test_any_numpy_view_is_taken(segmenter: Segmenter, view: str) -> None:
    pixels = picture(50, 80).permute(1, 2, 0).contiguous().numpy()
    seen = {"turned": np.rot90(pixels, -1), "bgr": pixels[:, :, ::-1], "read-only": np.asarray(Image.fromarray(pixels))}[view]
    assert torch.equal(segmenter.predict(seen), segmenter.predict(np.array(seen)))


def test_unreadable_picture_is_named(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jpg: cannot be read as an image"):
        segmenter.predict(tmp_path / "absent.jpg")


def test_predicting_leaves_evaluation_mode_and_no_gradient() -> None:
    segmenter, pixels = make().train(), picture(50, 80).permute(1, 2, 0).contiguous().numpy()
    found = segmenter.predict(pixels)
    assert not segmenter.training
    assert not found.requires_grad
    assert torch.equal(found, segmenter.predict(pixels))


def test_nothing_to_segment(segmenter: Segmenter) -> None:
    assert make(sliding=True).segment([]) == []


@pytest.mark.parametrize("scales", [[], [0.0], [1.0, -0.5]])
def test_scales_that_are_not_possible(segmenter: Segmenter, scales: list[float]) -> None:
    message = "are not possible; accepted: one or more positive numbers"
    with pytest.raises(ValueError, match=message):
        segmenter.set_looks(scales)
    with pytest.raises(ValueError, match=message):
        make(scales=scales)
    assert segmenter.scales == (1.0,)


@pytest.mark.parametrize(
    ("head", "taps"),
    [
        (partial(DeepLabV3, channels=16, atrous_rates=(6, 12), separable=True, align_corners=True, padding="same"), ["layer18"]),
        (partial(DeepLabV3, channels=16, decoder=True), ["layer4", "layer18"]),
        (partial(LRASPP, channels=16), ["layer7", "layer18"]),
        (partial(SmpDecoder, architecture="FPN", settings={"decoder_pyramid_channels": 16}), ["layer4", "layer7", "layer14", "layer18"]),
    ],
    ids=["atrous", "decoder", "lraspp", "smp"],
)
def test_saved_segmenter_is_rebuilt(head: Any, taps: list[str], tmp_path: Path) -> None:
    stride = 32 if head.func is SmpDecoder else 16
    options = {"mean": (0.5, 0.5, 0.4), "std": (0.2, 0.2, 0.3), "scales": (0.5, 1.25), "flip": True, "sliding": True}
    saved = make(head, taps, stride, **options)
    saved.save(tmp_path / "segmenter.pt")
    rebuilt = Segmenter.from_checkpoint(tmp_path / "segmenter.pt")
    assert (rebuilt.class_names, rebuilt.size, rebuilt.training) == (NAMES, SIZE, False)
    assert (rebuilt.scales, rebuilt.flip, rebuilt.sliding) == ((0.5, 1.25), True, True)
    assert rebuilt.describe() == saved.describe()
    assert json.loads(json.dumps(saved.describe())) == saved.describe()
    assert type(rebuilt.head) is type(saved.head)
    assert rebuilt.head.align_corners == saved.head.align_corners
    assert torch.equal(rebuilt.segment([picture(70, 50)])[0], saved.segment([picture(70, 50)])[0])


def test_description_holds_names_size_and_parts(segmenter: Segmenter) -> None:
    described = segmenter.describe()
    assert described["class_names"] == list(NAMES)
    assert described["size"] == [65, 97]
    assert (described["scales"], described["flip"], described["sliding"]) == ([1.0], False, False)
    assert described["backbone"]["init_args"]["output_stride"] == 16
    assert described["head"]["class_path"] == "heads.deeplabv3.DeepLabV3"
    assert described["head"]["init_args"]["channels"] == 16
    assert {"taps", "num_classes"}.isdisjoint(described["head"]["init_args"])


def test_checkpoint_of_a_training_run_is_read(segmenter: Segmenter, tmp_path: Path) -> None:
    weights = {f"model.{name}": value for name, value in segmenter.state_dict().items()}
    torch.save({"segmenter": segmenter.describe(), "state_dict": weights, "epoch": 3, "optimizer_states": [{}]}, tmp_path / "run.ckpt")
    assert torch.equal(
        Segmenter.from_checkpoint(tmp_path / "run.ckpt").segment([picture(*SIZE)])[0], segmenter.segment([picture(*SIZE)])[0]
    )


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(segmenter: Segmenter, tmp_path: Path) -> None:
    torch.save({"segmenter": segmenter.describe(), "state_dict": {}, "extra": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    for name in ("bomb.pt", "bomb.pkl"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a checkpoint of tensors and plain values"):
            Segmenter.from_checkpoint(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a checkpoint of tensors and plain values"):
            segmenter.load_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_models_of_the_other_task_are_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    detector = Detector(MobileNetV2(width_mult=0.35), SSDLite, ("cat",), (64, 64))
    detector.save(tmp_path / "detector.pt")
    segmenter.save(tmp_path / "segmenter.pt")
    with pytest.raises(ValueError, match=r"detector\.pt: holds no segmenter; accepted: a run's checkpoint, or a file of Segmenter\.save$"):
        Segmenter.from_checkpoint(tmp_path / "detector.pt")
    with pytest.raises(ValueError, match=r"segmenter\.pt: holds no detector; accepted: a run's checkpoint, or a file of Detector\.save$"):
        Detector.from_checkpoint(tmp_path / "segmenter.pt")


def test_description_with_a_detection_head_is_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    described = segmenter.describe() | {"head": {"class_path": "heads.ssd.SSDLite", "init_args": {}}}
    torch.save({"segmenter": described, "state_dict": {}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="SSDLite', which is not a SegmentationHead"):
        Segmenter.from_checkpoint(tmp_path / "odd.pt")


def dilations(segmenter: Segmenter) -> set[int]:
    return {m.dilation[0] if isinstance(m.dilation, tuple) else m.dilation for m in segmenter.modules() if hasattr(m, "dilation")}


def test_weights_serve_at_another_output_stride(tmp_path: Path) -> None:
    coarse, fine = (make(partial(DeepLabV3, channels=16, atrous_rates=(6,)), output_stride=stride) for stride in (16, 8))
    assert {2, 6} <= dilations(coarse)
    assert {2, 4, 12} <= dilations(fine)
    assert not {4, 12} & dilations(coarse)
    assert 6 not in dilations(fine)
    for source, target in ((coarse, fine), (fine, coarse)):
        source.save(tmp_path / "weights.pt")
        target.load_weights(tmp_path / "weights.pt")
        assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    with torch.no_grad():
        pixels = padded(coarse, picture(*SIZE))
        assert cells_of(coarse, pixels).shape[2:] == (5, 7)
        assert cells_of(fine, pixels).shape[2:] == (9, 13)


def test_strict_weights_refuse_another_architecture(tmp_path: Path) -> None:
    make().save(tmp_path / "weights.pt")
    other = make(partial(DeepLabV3, channels=16, atrous_rates=(6,)))
    with pytest.raises(
        ValueError, match=r"weights\.pt: \d+ of \d+ tensors do not fit: head\.branches\.1\.0\.weight \(missing, wanted 16x112x3x3\)"
    ):
        other.load_weights(tmp_path / "weights.pt")
    make(names=NAMES[:3]).save(tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"2 of \d+ tensors do not fit: head\.logits\.weight \(3x16x1x1, wanted 4x16x1x1\), head\.logits\.bias"
    ):
        make().load_weights(tmp_path / "weights.pt")


def test_weights_of_another_class_count_name_what_was_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = make(names=NAMES[:3]), make()
    before = target.head.logits.weight.clone()
    source.save(tmp_path / "weights.pt")
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        target.load_weights(tmp_path / "weights.pt", strict=False)
    assert "left as initialised: head.logits.weight (3x16x1x1, wanted 4x16x1x1), head.logits.bias (3, wanted 4)" in caplog.text
    assert "not used: head.logits.weight, head.logits.bias" in caplog.text
    assert torch.equal(target.head.logits.weight, before)
    assert all(torch.equal(a, b) for a, b in zip(source.backbone.state_dict().values(), target.backbone.state_dict().values(), strict=True))
    assert torch.equal(source.head.projection[0].weight, target.head.projection[0].weight)


def test_weights_of_nothing_in_common_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"model.other": torch.ones(1)}}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="tensors do not fit"):
        make().load_weights(tmp_path / "weights.pt", strict=False)


@pytest.mark.parametrize("image", [torch.rand(3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)])
def test_other_images_are_refused(segmenter: Segmenter, image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"an image is \(.*\) of torch\..*; accepted: \(3, H, W\) uint8 RGB"):
        segmenter.segment([image])


@pytest.mark.parametrize("pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_other_pixels_are_refused(segmenter: Segmenter, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"accepted: a file, or \(H, W, 3\) uint8 RGB pixels"):
        segmenter.predict(pixels)


def test_names_that_occur_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="class_names has b more than once"):
        Segmenter(MobileNetV2(["layer18"], 0.35), DeepLabV3, ["a", "b", "b"], SIZE)


def test_buffers_of_a_loss_are_no_weights_of_the_model(segmenter: Segmenter, tmp_path: Path) -> None:
    segmenter.save(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt")
    checkpoint["state_dict"]["loss.weight"] = torch.ones(3)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    assert Segmenter.from_checkpoint(tmp_path / "model.ckpt").class_names == segmenter.class_names


def test_weights_for_other_colours_are_told(segmenter: Segmenter, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segmenter.save(tmp_path / "model.ckpt")
    spec = segmenter.describe() | {"mean": [0.25, 0.25, 0.25]}
    other = Segmenter.from_checkpoint(tmp_path / "model.ckpt")
    other.mean.fill_(spec["mean"][0])
    with caplog.at_level("WARNING", "lightning.pytorch"):
        other.load_weights(tmp_path / "model.ckpt")
    assert "were trained with mean" in caplog.text


def test_results_are_named_apart_and_classes_may_be_called_like_columns(tmp_path: Path) -> None:
    from tasks.segment.predict import predict

    Segmenter(MobileNetV2(["layer18"], 0.35), DeepLabV3, ["background", "mask", "file"], SIZE).save(tmp_path / "model.ckpt")
    (tmp_path / "photos").mkdir()
    for name in ("img.jpg", "img.png", "img_0001.jpg"):
        Image.new("RGB", (20, 10)).save(tmp_path / "photos" / name)
    predict(str(tmp_path / "model.ckpt"), str(tmp_path / "photos"), str(tmp_path / "out"))
    header, *rows = [line.split(",") for line in (tmp_path / "out/shares.csv").read_text().splitlines()]
    assert header == ["file", "mask", "background", "mask", "file"]
    assert [Path(row[0]).name for row in rows] == ["img.jpg", "img.png", "img_0001.jpg"]
    assert all(sum(map(float, row[2:])) == pytest.approx(1, abs=1e-3) for row in rows)
    assert len({row[1] for row in rows}) == len(list((tmp_path / "out/masks").iterdir())) == 3
