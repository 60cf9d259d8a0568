"""Captioned boxes, grids and curves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.pictures import PALETTE, colour_of, draw_boxes, draw_curves, grid, write_png


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
