"""Captioned boxes, masks, legends, grids and curves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.pictures import (
    PALETTE,
    add_legend,
    captioned,
    colour_of,
    draw_boxes,
    draw_curves,
    grid,
    new_figure,
    overlay,
    plot_bars,
    plot_confusion,
    save_figure,
    voc_palette,
    write_mask,
    write_png,
)


def test_colours_repeat_after_the_palette() -> None:
    assert colour_of(1) == "#56B4E9"
    assert len({colour_of(label) for label in range(len(PALETTE))}) == 8
    assert colour_of(8) == colour_of(0)


def test_box_is_drawn_on_a_copy_where_it_is() -> None:
    image = torch.zeros(3, 50, 80, dtype=torch.uint8)
    drawn = draw_boxes(image, torch.tensor([[10.0, 20.0, 60.0, 45.0]]), [""], ["#FF0000"])
    assert (drawn.shape, drawn.dtype) == (image.shape, torch.uint8)
    assert image.sum() == 0
    assert drawn[:, 30, 10].tolist() == [255, 0, 0]
    rows, columns = drawn[0].nonzero(as_tuple=True)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 20, 60, 45)
    assert drawn[:, 22:43, 12:58].sum() == 0


def test_caption_is_written_in_its_colour() -> None:
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    box = torch.tensor([[20.0, 40.0, 90.0, 90.0]])
    captioned = draw_boxes(image, box, ["cat 0.87"], ["#0000FF"])
    plain = draw_boxes(image, box, [""], ["#0000FF"])
    assert not torch.equal(captioned, plain)
    assert captioned[:2].sum() == 0


def test_frame_and_lines_are_around_and_below_the_image() -> None:
    image = torch.full((3, 40, 96), 128, dtype=torch.uint8)
    framed = captioned(image, ["cat 0.87", ""], "#D55E00")
    border = (framed.shape[2] - 96) // 2
    assert torch.equal(framed[:, border : border + 40, border : border + 96], image)
    frame = framed[:, : 40 + 2 * border].flatten(1).T.unique(dim=0).tolist()
    assert sorted(frame) == [[128, 128, 128], [0xD5, 0x5E, 0]]
    below = framed[:, 40 + 2 * border :]
    assert (below == torch.tensor([0xD5, 0x5E, 0]).view(3, 1, 1)).all(dim=0).any()
    assert captioned(image, ["", ""], "#D55E00").shape == framed.shape


def test_text_that_is_too_long_is_cut() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    short, long = (captioned(image, [text], "#000000")[:, 46:] for text in ("cat", "a cat of a breed whose name is long"))
    assert long.shape == short.shape
    assert (long < 255).any(dim=0).sum() > (short < 255).any(dim=0).sum()


def test_confusion_is_drawn_as_shares_of_the_true_class() -> None:
    figure, (axis,) = new_figure(1)
    plot_confusion(figure, axis, np.array([[3, 1], [0, 0]]), ["cat", "dog"])
    assert axis.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]
    assert [text.get_text() for text in axis.texts] == ["0.75", "0.25", "0.00", "0.00"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cat", "dog"]
    figure, (axis,) = new_figure(1)
    plot_confusion(figure, axis, np.eye(11, dtype=np.int64), [str(k) for k in range(11)])
    assert not axis.texts


def test_no_boxes_give_an_equal_new_image() -> None:
    image = torch.full((3, 4, 4), 9, dtype=torch.uint8)
    drawn = draw_boxes(image, torch.zeros(0, 4), [], [])
    assert torch.equal(drawn, image)
    drawn[:] = 0
    assert (image == 9).all()


@pytest.mark.parametrize("box", [[0.0, 0, 0.2, 0.2], [0, 0, 4, 4], [3.6, 3.6, 4, 4], [-5, -5, 50, 50]])
def test_tiny_images_and_boxes_are_drawn(box: list[float]) -> None:
    drawn = draw_boxes(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.tensor([box]), ["long caption"], ["#FFFFFF"])
    assert drawn.shape == (3, 4, 4)


def test_png_holds_the_pixels(tmp_path: Path) -> None:
    image = torch.randint(256, (3, 5, 7), dtype=torch.uint8)
    write_png(image, tmp_path / "deep" / "a.png")
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("count", "shape"), [(2, (3, 18, 52)), (4, (3, 18, 100)), (5, (3, 32, 100))])
def test_grid_has_up_to_four_columns_and_white_lines(count: int, shape: tuple[int, ...]) -> None:
    joined = grid([torch.zeros(3, 10, 20, dtype=torch.uint8)] * count)
    assert (joined.shape, joined.dtype) == (shape, torch.uint8)
    assert joined[:, 0, 0].tolist() == [255, 255, 255]
    assert joined[:, 4, 4].tolist() == [0, 0, 0]


def test_grid_of_one_image_is_the_image() -> None:
    image = torch.randint(256, (3, 10, 20), dtype=torch.uint8)
    assert torch.equal(grid([image]), image)


def test_curves_are_drawn_from_the_history(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,loss,AP\n0,0,3.0,\n1,0,nan,\n2,0,1.0,0.5\n")
    groups = {"loss": ["loss", "absent"], "AP": ["AP"], "none": ["absent"]}
    draw_curves(tmp_path / "metrics.csv", groups, tmp_path / "out" / "curves.png")
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.size == (1800, 450)


def test_no_history_draws_nothing(tmp_path: Path) -> None:
    draw_curves(tmp_path / "absent.csv", {"loss": ["loss"]}, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 5, 40])
def test_bars_are_drawn_worst_first(count: int) -> None:
    _, (axis,) = new_figure(1)
    values = {f"class {number}": (number * 7 % count) / count for number in range(count)}
    plot_bars(axis, values, "IoU")
    lengths = [bar.get_width() for bar in axis.patches]
    assert lengths == sorted(values.values())
    assert [values[label.get_text()] for label in axis.get_yticklabels()] == lengths
    assert (axis.get_title(), axis.get_xlim()) == ("IoU", (0, 1))


@pytest.mark.parametrize("count", [41, 80])
def test_of_many_bars_the_worst_and_the_best_are_drawn(count: int) -> None:
    _, (axis,) = new_figure(1)
    plot_bars(axis, {str(number): number / 100 for number in reversed(range(count))}, "AP")
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [str(number) for number in (*range(20), *range(count - 20, count))]


def test_no_bars_and_undefined_bars_are_drawn(tmp_path: Path) -> None:
    figure, (left, right) = new_figure(2)
    plot_bars(left, {}, "none")
    plot_bars(right, {"cat": 0.5, "dog": float("nan")}, "undefined")
    save_figure(figure, tmp_path / "deep" / "bars.png")
    with Image.open(tmp_path / "deep" / "bars.png") as picture:
        assert picture.size == (1200, 450)


def test_palette_has_vocs_colours() -> None:
    palette = voc_palette()
    assert (palette.shape, palette.dtype) == ((256, 3), np.uint8)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {value: tuple(palette[value].tolist()) for value in known} == known
    assert palette[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette, axis=0)) == 256


def test_palette_is_that_of_the_real_masks(shared: Path) -> None:
    path = next((shared / "data" / "VOCdevkit" / "VOC2012" / "SegmentationClass").glob("*.png"))
    with Image.open(path) as picture:
        assert picture.getpalette()[: 21 * 3] == voc_palette()[:21].flatten().tolist()


def test_written_mask_keeps_its_indices_and_has_vocs_colours(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for number, indices in enumerate((mask, mask.T, mask[::2, ::-3], mask[:1, :1])):
        path = tmp_path / "deep" / f"{number}.png"
        write_mask(indices, path)
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("P", indices.shape[::-1])
            assert np.array_equal(np.asarray(picture), indices)
            assert np.array_equal(np.asarray(picture.convert("RGB")), voc_palette()[indices])


def test_overlay_leaves_background_and_mixes_the_rest() -> None:
    image = torch.randint(256, (3, 2, 3), dtype=torch.uint8)
    before = image.clone()
    mask = torch.tensor([[0, 1, 15], [255, 0, 20]], dtype=torch.uint8)
    mixed = overlay(image, mask, opacity=0.25)
    assert (mixed.shape, mixed.dtype) == (image.shape, torch.uint8)
    assert torch.equal(image, before)
    painted = torch.from_numpy(voc_palette())[mask.int()].permute(2, 0, 1).clone()
    painted[:, 1, 0] = 255  # void is white
    expected = torch.where(mask == 0, image, 0.75 * image + 0.25 * painted)
    assert (mixed - expected).abs().max() <= 0.5
    assert torch.equal(mixed[:, mask == 0], image[:, mask == 0])


@pytest.mark.parametrize("image_value", [0, 255])
def test_overlay_of_full_and_of_no_opacity(image_value: int) -> None:
    image, mask = torch.full((3, 16, 16), image_value, dtype=torch.uint8), torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    full = overlay(image, mask, opacity=1.0).permute(1, 2, 0).reshape(256, 3)
    assert full[1:255].tolist() == voc_palette()[1:255].tolist()
    assert (full[0].tolist(), full[255].tolist()) == ([image_value] * 3, [255] * 3)
    assert torch.equal(overlay(image, mask, opacity=0.0), image)


def test_overlay_of_background_is_an_equal_new_image() -> None:
    image = torch.full((3, 4, 5), 9, dtype=torch.uint8)
    mixed = overlay(image, torch.zeros(4, 5, dtype=torch.uint8))
    assert torch.equal(mixed, image)
    mixed[:] = 0
    assert (image == 9).all()


COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)


def has_colour(image: torch.Tensor, colour: np.ndarray) -> bool:
    return bool((image == torch.from_numpy(colour)[:, None, None]).all(dim=0).any())


def test_legend_is_added_below_with_its_colours() -> None:
    image = torch.randint(256, (3, 100, 300), dtype=torch.uint8)
    before = image.clone()
    with_legend = add_legend(image, ["cat", "dog", "cow"], COLOURS)
    assert with_legend.dtype == torch.uint8
    assert with_legend.shape[2] == 300
    assert torch.equal(with_legend[:, :100], before)
    strip = with_legend[:, 100:]
    assert all(has_colour(strip, colour) for colour in COLOURS)
    assert has_colour(strip, np.array([255, 255, 255], dtype=np.uint8))
    assert not torch.equal(strip, add_legend(image, ["ant", "bee", "fly"], COLOURS)[:, 100:])


def test_legend_takes_as_many_lines_as_it_needs() -> None:
    images = [torch.zeros(3, 50, width, dtype=torch.uint8) for width in (300, 120, 60)]
    heights = [add_legend(image, ["cat", "dog", "cow"], COLOURS).shape[1] - 50 for image in images]
    assert heights == [heights[0], 2 * heights[0], 3 * heights[0]]


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 1, 200), (3, 900, 30)])
def test_legend_of_tiny_and_narrow_images(shape: tuple[int, ...]) -> None:
    image = torch.zeros(shape, dtype=torch.uint8)
    with_legend = add_legend(image, ["a very long name of a class", "b"], COLOURS[:2])
    assert with_legend.shape[2] == shape[2]
    assert with_legend.shape[1] > shape[1]


def test_no_names_add_nothing() -> None:
    image = torch.randint(256, (3, 10, 20), dtype=torch.uint8)
    assert torch.equal(add_legend(image, [], COLOURS[:0]), image)
