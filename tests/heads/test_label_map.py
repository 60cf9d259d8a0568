"""Maps of classes in original pixels, against torch's own interpolation."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backbones import Tap
from heads import DeepLabV3
from heads.label_map import label_map, patches, positions

both_alignments = pytest.mark.parametrize("align_corners", [False, True])


def agree(found: Tensor, scores: Tensor) -> None:
    """Compares classes with those of (K, H, W) scores, except where the best two are equal but for rounding."""
    assert found.dtype == torch.uint8
    best = scores.topk(2, dim=0)
    clear = best.values[0] - best.values[1] > 1e-5
    assert clear.float().mean() > 0.99
    assert found.shape == scores.shape[1:]
    assert torch.equal(found[clear], best.indices[0][clear].to(torch.uint8))


@both_alignments
@pytest.mark.parametrize("cells", [(7, 5), (1, 1), (1, 6), (9, 1), (2, 2), (33, 17), (97, 33)])
@pytest.mark.parametrize(("input_size", "content"), [((97, 33), (97, 33)), ((97, 33), (60, 31)), ((96, 64), (1, 64)), ((97, 33), (1, 1))])
def test_equals_upsampling_and_cropping(
    cells: tuple[int, int], input_size: tuple[int, int], content: tuple[int, int], align_corners: bool
) -> None:
    scores = torch.randn(4, *cells)
    upsampled = F.interpolate(scores[None], input_size, mode="bilinear", align_corners=align_corners)[0]
    agree(label_map(scores, input_size, content, content, align_corners), upsampled[:, : content[0], : content[1]])


@both_alignments
@pytest.mark.parametrize(
    ("content", "image"), [((32, 32), (64, 64)), ((32, 24), (64, 81)), ((97, 33), (40, 21)), ((50, 33), (173, 100)), ((8, 8), (1, 1))]
)
def test_resized_content_equals_sampling_at_each_pixel(content: tuple[int, int], image: tuple[int, int], align_corners: bool) -> None:
    scores, input_size = torch.randn(4, 13, 5), (97, 33)
    centres = [((torch.arange(n) + 0.5) * c / n - 0.5).clamp(0, c - 1) for n, c in zip(image, content, strict=True)]
    y, x = (2 * p / (s - 1) - 1 if align_corners else (2 * p + 1) / s - 1 for p, s in zip(centres, input_size, strict=True))
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)[None]
    agree(
        label_map(scores, input_size, content, image, align_corners),
        F.grid_sample(scores[None], grid, padding_mode="border", align_corners=align_corners)[0],
    )


def test_doubled_content_by_hand() -> None:
    # Content 32 pixels high of cells 32 high, for 64 original rows: rows 0 and 1 lie at -.25 and .25 of the content's.
    low, share = positions(32, 32, 32, 64, False)
    assert low[:4].tolist() == [0, 0, 0, 1]
    assert share[:4].tolist() == [0, 0.25, 0.75, 0.25]
    assert (low[-1], share[-1]) == (30, 1)


@both_alignments
@pytest.mark.parametrize("cells", [1, 2, 7, 33])
def test_every_pixel_lies_between_two_cells(cells: int, align_corners: bool) -> None:
    for input_size, content, image in [(97, 97, 97), (97, 60, 480), (513, 513, 375), (1, 1, 1), (16, 1, 5)]:
        low, share = positions(cells, input_size, content, image, align_corners)
        assert len(low) == len(share) == image
        assert ((low >= 0) & (low <= max(cells - 2, 0))).all()
        assert ((share >= 0) & (share <= 1)).all()
        found = patches(cells, input_size, content, image, align_corners, torch.device("cpu"))
        assert sorted(found.pixels[found.used].unique().tolist()) == list(range(image))
        assert torch.equal(low[found.pixels[found.used]], found.used.nonzero().expand(-1, found.pixels.shape[1]))


def test_class_that_is_best_at_no_corner_wins_between_them() -> None:
    # Three quarters of the way along, classes 0 and 1 score .25 and .75; half way, .5 each, while class 2 scores .6 everywhere.
    scores = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.6, 0.6]]])
    assert label_map(scores, (1, 9), (1, 9), (1, 9), True).tolist() == [[0, 0, 0, 0, 2, 1, 1, 1, 1]]


def test_few_scores_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, sizes = torch.randn(5, 9, 7), ((97, 65), (90, 65), (200, 301))
    whole = label_map(scores, *sizes, False)
    monkeypatch.setattr("heads.label_map.SCORES", 1)
    assert torch.equal(label_map(scores, *sizes, False), whole)


def test_padding_is_never_seen_past_the_last_cell_of_the_content() -> None:
    scores = torch.zeros(2, 8, 8)
    scores[0, :4], scores[1, 4:] = 1, 1  # class 1 in the lower half, which is padding
    assert (label_map(scores, (64, 64), (32, 64), (320, 640), False) == 0).all()


@both_alignments
def test_postprocess_keeps_images_apart(align_corners: bool) -> None:
    head = DeepLabV3({"coarse": Tap(8, 16)}, 4, channels=8, align_corners=align_corners)
    logits, contents, images = torch.randn(2, 4, 7, 3), torch.tensor([[97, 33], [50, 33]]), torch.tensor([[194, 66], [20, 11]])
    found = head.postprocess(logits, (97, 33), contents, images)
    for k, labels in enumerate(found):
        assert labels.shape == tuple(images[k])
        alone = label_map(logits[k], (97, 33), contents[k].tolist(), images[k].tolist(), align_corners)
        assert torch.equal(labels, alone)


@both_alignments
def test_postprocess_of_upsampled_logits_gives_the_same_map(align_corners: bool) -> None:
    # At the input's own pixels it is one interpolation either way.
    head = DeepLabV3({"coarse": Tap(8, 16)}, 4, channels=8, align_corners=align_corners)
    logits, size = torch.randn(1, 4, 7, 3), torch.tensor([[97, 33]])
    (direct,) = head.postprocess(logits, (97, 33), size, size)
    (stepwise,) = head.postprocess(head.upsample(logits, (97, 33)), (97, 33), size, size)
    assert (direct == stepwise).float().mean() > 0.999


def test_scores_in_half_precision() -> None:
    scores = torch.randn(4, 7, 3).bfloat16()
    assert torch.equal(
        label_map(scores, (97, 33), (97, 33), (97, 33), False), label_map(scores.float(), (97, 33), (97, 33), (97, 33), False)
    )


def test_255_classes_fit() -> None:
    scores = torch.arange(255.0)[:, None, None].expand(-1, 2, 2)
    assert (label_map(scores, (4, 4), (4, 4), (4, 4), False) == 254).all()


def test_cached_weights_serve_after_inference_mode() -> None:
    scores = torch.randn(4, 6, 6)
    with torch.inference_mode():
        first = label_map(scores, (91, 91), (91, 91), (91, 91), False)
    assert torch.equal(label_map(scores, (91, 91), (91, 91), (91, 91), False), first)
