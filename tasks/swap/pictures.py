"""Pictures of an experiment: figures against costs, and the curves of all backbones over each other."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.pictures import PALETTE, new_figure, save_figure
from tasks.swap.plan import Plan
from tasks.swap.records import place_of
from tasks.swap.results import FIGURES, Entry
from tasks.swap.statistics import pareto

# Without white and yellow, which cannot be seen on white; with other markers and lines where colours begin again.
COLOURS, MARKERS = [colour for colour in PALETTE if colour not in ("#FFFFFF", "#F0E442")], "osD^vP"
LINES = ("-", "--", ":", "-.")
# Steps of a curve of losses that are drawn; more are averaged to this many.
DRAWN_STEPS = 40

COSTS: dict[str, Callable[[Entry], float | None]] = {
    "multiply-adds in millions": lambda entry: entry.cost.multiply_adds / 1e6,
    "parameters in millions": lambda entry: entry.cost.parameters / 1e6,
    "CPU latency in ms": lambda entry: (entry.cost.latency.get("milliseconds") or [None])[0],
}


def draw(plan: Plan, task: str, entries: Sequence[Entry]) -> list[Path]:
    """Draws what there is of a task.

    Returns:
        The files.
    """
    folder = plan.folder / "pictures"
    drawn = [_draw_costs(task, entries, folder / f"{task}_costs.png"), _draw_curves(plan, task, entries, folder / f"{task}_curves.png")]
    return [path for path in drawn if path is not None]


def _draw_costs(task: str, entries: Sequence[Entry], path: Path) -> Path | None:
    figure_name = FIGURES[task][0]
    scored = [(number, entry) for number, entry in enumerate(entries) if entry.spread(figure_name)]
    costs = {title: cost for title, cost in COSTS.items() if any(cost(entry) is not None for _, entry in scored)}
    if not scored:
        return None
    figure, axes = new_figure(len(costs))
    for axis, (title, cost) in zip(axes, costs.items(), strict=True):
        points = [(number, entry, value) for number, entry in scored if (value := cost(entry)) is not None]
        _plot_points(axis, points, figure_name)
        axis.set(title=f"{figure_name} against {title}", xlabel=title, ylabel=f"{figure_name} in percent")
        axis.margins(x=0.25, y=0.15)
        axis.set_xlim(left=max(0.0, axis.get_xlim()[0]))
    figure.draw_without_rendering()
    for axis in axes:
        _place_labels(figure, axis)
    save_figure(figure, path)
    return path


def _plot_points(axis: Any, points: list[tuple[int, Entry, float]], figure_name: str) -> None:
    """Points with error bars; those of the Pareto front are filled and joined."""
    scores = {entry.network.name: (cost, 100 * entry.spread(figure_name).mean) for _, entry, cost in points}  # type: ignore[union-attr]
    front = pareto(scores)
    line = {"color": "grey", "linestyle": "--", "linewidth": 1, "zorder": 1}
    axis.plot(*zip(*(scores[name] for name in front), strict=True), label="Pareto front (filled)", **line)
    for number, entry, _ in points:
        name, spread = entry.network.name, entry.spread(figure_name)
        x, y = scores[name]
        colour = colour_of(number)
        error = 100 * spread.deviation if spread and spread.deviation is not None else None
        filled = colour if name in front else "white"
        axis.errorbar(x, y, error, fmt=marker_of(number), color=colour, markerfacecolor=filled, markersize=8, capsize=4)
        axis.annotate(name, (x, y), textcoords="offset points", xytext=(0, 0), fontsize=9)
    axis.legend(loc="lower right", fontsize=8)


def colour_of(number: int) -> str:
    """Returns the colour of a backbone by its place in the plan."""
    return COLOURS[number % len(COLOURS)]


def marker_of(number: int) -> str:
    """Returns the marker of a backbone by its place in the plan."""
    return MARKERS[number // len(COLOURS) % len(MARKERS)]


def _place_labels(figure: Any, axis: Any) -> None:
    """Moves each label to the first place around its point where it lies over no other label or point, and inside the axes."""
    renderer = figure.canvas.get_renderer()
    taken = [_around(axis.transData.transform(label.xy)) for label in axis.texts]
    legend = axis.get_legend()
    taken += [legend.get_window_extent(renderer)] if legend else []
    inside = axis.get_window_extent(renderer)
    for label in axis.texts:
        tried: list[Any] = []
        for x, y, side in ((9, 4, "left"), (9, -11, "left"), (-9, 4, "right"), (-9, -11, "right"), (0, 12, "center"), (0, -20, "center")):
            label.set(position=(x, y), horizontalalignment=side)
            box = label.get_window_extent(renderer)
            outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            tried.append((outside + sum(box.overlaps(other) for other in taken), len(tried), (x, y), side, box))
        _, _, position, side, box = min(tried, key=lambda place: place[:2])
        label.set(position=position, horizontalalignment=side)
        taken.append(box)


def _around(point: Any, radius: float = 6.0) -> Any:
    from matplotlib.transforms import Bbox

    x, y = point
    return Bbox([[x - radius, y - radius], [x + radius, y + radius]])


def _draw_curves(plan: Plan, task: str, entries: Sequence[Entry], path: Path) -> Path | None:
    name = FIGURES[task][0]
    figure, axes = new_figure(2)
    for axis, (column, title, factor) in zip(
        axes, ((f"val/{name}", f"{name} in percent", 100), ("train/loss", "training loss", 1)), strict=True
    ):
        for number, entry in enumerate(entries):
            _plot_column(axis, plan, entry, column, factor, number)
        axis.set(title=f"{title}, one line a seed", xlabel="optimizer step")
        if axis.lines:
            axis.legend(fontsize=8)
    if not any(axis.lines for axis in axes):
        return None
    save_figure(figure, path)
    return path


def _plot_column(axis: Any, plan: Plan, entry: Entry, column: str, factor: float, number: int) -> None:
    label = entry.network.name
    for result in entry.results:
        history = place_of(plan.folder, result.run).folder / "metrics.csv"
        points = _column(history, column) if result.state != "changed" else []
        if points:
            steps, values = zip(*points, strict=True)
            style: dict[str, Any] = {"marker": "."} if len(points) < DRAWN_STEPS // 2 else {}
            style |= {"color": colour_of(number), "linestyle": LINES[number // len(COLOURS) % len(LINES)], "linewidth": 1.2, "alpha": 0.8}
            axis.plot(steps, [factor * value for value in values], label=label, **style)
            label = "_"  # once in the legend


def _column(history: Path, column: str) -> list[tuple[float, float]]:
    """A column of a metrics.csv over the steps, long ones averaged in pieces."""
    if not history.is_file():
        return []
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = [(float(r["step"]), float(r[column])) for r in rows if r.get(column) and math.isfinite(float(r[column]))]
    piece = math.ceil(len(points) / DRAWN_STEPS)
    if piece < 2:
        return points
    pieces = [points[begin : begin + piece] for begin in range(0, len(points), piece)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in pieces]
