"""The figures of a report that suit every algorithm and every task family. Each returns a matplotlib Figure."""

from typing import Any

import numpy as np

from nacre.plotting import (
    DASHES,
    GRID,
    INK,
    MUTED,
    SERIES,
    colour_bar,
    legend_above,
    new_figure,
    short_number,
    styled,
    task_colours,
    task_scale,
    thousands,
    whole_ticks,
)  # fmt: skip
from nacre.report_data import metric_series
from nacre.report_summary import Curve, Group

REFERENCES = {  # name in the result -> label and line style
    "oracle": ("oracle (knows the task)", (0, (6, 1))),
    "no_adaptation": ("last agent without adaptation", (0, (3, 2))),
    "random": ("random actions", (0, (1, 1.5))),
    "still": ("doing nothing", (0, (4, 1.5, 1, 1.5))),
}
MARKERS = "osD^vP"
SEED_ALPHA = 0.35


def key_shots(shots: int, exploration: int) -> list[int]:
    """First, end of exploration and last, each once."""
    return sorted({0, min(exploration, shots - 1), shots - 1})


def shot_name(k: int, shots: int, exploration: int, learns_within: bool = False) -> str:
    words = {0: "first" if learns_within else "before any adaptation", shots - 1: "last"}
    if 0 < exploration < shots - 1:
        words[exploration] = "exploration over"
    return f"shot {k} ({words[k]})" if k in words else f"shot {k}"


def colour(k: int) -> str:
    return SERIES[k % len(SERIES)]


def look_of(n: int) -> dict[str, str]:
    """Colour, dash and marker of the n-th line; beyond the colours, other dashes and markers with each."""
    k = n + n // len(SERIES)
    return {"color": colour(n), "linestyle": DASHES[k % len(DASHES)], "marker": MARKERS[k % len(MARKERS)]}


# ------------------------------------------------------------------------------------------------ learning curves


def draw_references(axis: Any, references: dict[str, np.ndarray]) -> None:
    """Horizontal lines at the mean over shots."""
    for name, (label, dash) in REFERENCES.items():
        if name in references:
            axis.axhline(
                np.nanmean(references[name]), color=MUTED, linewidth=1.3, linestyle=dash, label=label, zorder=1
            )


def draw_curve(axis: Any, curve: Curve, x: np.ndarray, shot: int, look: dict[str, Any]) -> None:
    """Mean and interval of one shot; one point alone is a marker with a bar."""
    low, high = curve.interval[:, :, shot].T
    axis.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0)
    if len(x) == 1:
        axis.vlines(x, low, high, color=look["color"], linewidth=1.5)
    axis.plot(x, curve.mean[:, shot], markersize=4, zorder=3, **look)


def draw_seeds(axis: Any, curve: Curve, over_time: bool, shot: int, line: str) -> None:
    """Thin lines of the single seeds, where there are several."""
    if len(curve.per_seed) > 1:
        for steps, minutes, mean in curve.per_seed:
            axis.plot(minutes if over_time else steps, mean[:, shot], color=line, linewidth=0.8, alpha=SEED_ALPHA)


def x_axis(axis: Any, over_time: bool) -> None:
    if over_time:
        axis.set_xlabel("training time (minutes)")
    else:
        axis.set_xlabel("env steps of training")
        thousands(axis.xaxis)
    axis.set_xlim(left=-0.02 * axis.get_xlim()[1])


Panel = tuple[str, list[int]]  # title, and the shot of each group


def panels(groups: list[Group]) -> list[Panel]:
    """What several groups are compared at. Trials of different length are compared by what a shot is for, not by its number."""
    protocols = {(group.curve.shots, group.exploration) for group in groups}
    if len(protocols) == 1:
        shots, exploration = protocols.pop()
        within = any(group.learns_within for group in groups)
        keys = key_shots(shots, exploration)
        return [(shot_name(k, shots, exploration, within), [k] * len(groups)) for k in keys]
    last = [group.curve.shots - 1 for group in groups]
    after = [min(group.exploration, end) for group, end in zip(groups, last, strict=True)]
    rows = {"first episode": [0] * len(groups), "first episode after exploration": after, "last episode": last}
    kept = {tuple(shots): name for name, shots in reversed(rows.items())}  # a row that says nothing new goes
    return [(name, list(shots)) for shots, name in reversed(kept.items())]


@styled
def learning_curves(groups: list[Group], references: dict[str, np.ndarray]) -> Any:
    """Return over env steps and over minutes. One group: a line per key shot; several: a row of panels per key shot."""
    groups = [group for group in groups if group.curve.shots]
    first = groups[0]
    shots, exploration = first.curve.shots, first.exploration
    rows = [("", key_shots(shots, exploration))] if len(groups) == 1 else panels(groups)
    figure, axes = new_figure(len(rows), 2, height=2.5 * len(rows) + 1.2, sharey="row", sharex="col")
    for row, (title, shown) in zip(axes, rows, strict=True):
        for over_time, axis in enumerate(row):
            for n, k in enumerate(shown):
                group = groups[n] if len(groups) > 1 else first
                x = group.curve.minutes if over_time else group.curve.env_steps
                named = group.label if len(groups) > 1 else shot_name(k, shots, exploration, group.learns_within)
                draw_seeds(axis, group.curve, bool(over_time), k, colour(n))
                draw_curve(axis, group.curve, x, k, {**look_of(n), "label": named})
            draw_references(axis, references)
            if title and not over_time:
                axis.set_title(title)
        row[0].set_ylabel("return of an episode")
    for over_time, axis in enumerate(axes[-1]):
        x_axis(axis, bool(over_time))
    legend_above(figure, axes, columns=3 if len(groups) > 1 else 4)
    return figure


# ------------------------------------------------------------------------------------------------- the final test


@styled
def return_per_shot(groups: list[Group]) -> Any:
    """The last evaluation, shot by shot."""
    groups = [group for group in groups if group.final is not None]
    finals = [group.final for group in groups]
    figure, axes = new_figure(height=3.5)
    axis = axes[0, 0]
    shots = max(len(final.shots) for final in finals)
    for n, (group, final) in enumerate(zip(groups, finals, strict=True)):
        x = np.arange(len(final.shots)) + (n - (len(finals) - 1) / 2) * 0.06
        size = np.abs(final.interval - final.shots)
        axis.errorbar(x, final.shots, yerr=size, markersize=5, linewidth=1.6, elinewidth=1.2, capsize=2.5, zorder=3,
                      label=group.label if len(finals) > 1 else "this agent", **look_of(n))  # fmt: skip
    longest = max(finals, key=lambda final: len(final.shots))
    for name, (label, dash) in REFERENCES.items():
        known = [final.references[name] for final in (longest, *finals) if name in final.references]
        if known and (len(finals) == 1 or name != "no_adaptation"):
            values = known[0]
            x = np.arange(len(values)) if len(values) > 1 else np.array([-0.3, 0.3])
            values = values if len(values) > 1 else np.repeat(values, 2)
            axis.plot(x, values, color=MUTED, linewidth=1.3, linestyle=dash, label=label, zorder=1)
    exploration = groups[0].exploration
    if 0 < exploration < shots and {group.exploration for group in groups} == {exploration}:
        axis.axvspan(-0.5, exploration - 0.5, color=MUTED, alpha=0.12, linewidth=0)
        axis.text(exploration - 0.55, 1.0, "exploring", transform=axis.get_xaxis_transform(), ha="right", va="bottom",
                  color=MUTED, fontsize=8.5)  # fmt: skip
    axis.set(xlim=(-0.5, shots - 0.5), xlabel="shot (episode of the trial)", ylabel="return of an episode")
    whole_ticks(axis.xaxis)
    legend_above(figure, axis, columns=5 if len(finals) == 1 else 3)
    return figure


def task_order(axis_label: str, values: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, list[str], str]:
    """How to sort tasks, what to write under each, and the name of the axis."""
    order = np.argsort(values, kind="stable")
    digits = 0 if np.ptp(values) >= 20 else 2
    if np.array_equal(values, np.round(values)):
        digits = 0
    return order, [f"{values[i]:.{digits}f}" for i in order], axis_label


@styled
def per_task(groups: list[Group], task_axis: tuple[str, np.ndarray]) -> Any:
    """Bars per test task: first and last shot of one group, or the last shot of several."""
    finals = [(group.label, group.final) for group in groups if group.final is not None]
    label, values = task_axis
    order, ticks, label = task_order(label, values, finals[0][1].tasks)
    if len(finals) == 1:
        final, last = finals[0][1], len(finals[0][1].shots) - 1
        bars = [("shot 0", final.per_task[:, 0], GRID), (f"shot {last}", final.per_task[:, last], SERIES[0])]
        bars = bars[-1:] if last == 0 else bars
    else:
        finals = [(name, final) for name, final in finals if len(final.per_task) == len(values)]
        bars = [(name, final.per_task[:, -1], colour(n)) for n, (name, final) in enumerate(finals)]
    figure, axes = new_figure(height=3.3)
    axis, width = axes[0, 0], 0.82 / len(bars)
    for n, (name, heights, face) in enumerate(bars):
        x = np.arange(len(order)) + (n - (len(bars) - 1) / 2) * width
        edge = MUTED if face == GRID else face
        axis.bar(x, heights[order], width, color=face, edgecolor=edge, linewidth=0.6, label=name)
    draw_references(axis, {name: v for name, v in finals[0][1].references.items() if name == "oracle"})
    axis.axhline(0, color=MUTED, linewidth=0.8)
    axis.set(xlim=(-0.7, len(order) - 0.3), xlabel=label, ylabel="return of an episode")
    step = -(-len(order) // 40)
    axis.set_xticks(np.arange(len(order))[::step], ticks[::step], rotation=90 if len(order) > 22 else 0)
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="x", visible=False)
    legend_above(figure, axis)
    return figure


# --------------------------------------------------------------------------------------------------- what it believes


def belief_mean(beliefs: dict[str, np.ndarray]) -> np.ndarray | None:
    """The mean of the belief, [R, K, N, d], whatever the algorithm calls it as long as the name ends in `mean`."""
    names = sorted((name for name in beliefs if name.split("/")[-1].endswith("mean")), key=len)
    found = [beliefs[name] for name in names if beliefs[name].ndim >= 4]
    return found[0].reshape(*found[0].shape[:3], -1) if found else None


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [M, d] -> their mean [d], directions [2, d] of greatest variance, and the shares of it they hold [2]."""
    centre = points.mean(axis=0)
    _, size, directions = np.linalg.svd(points - centre, full_matrices=False)
    share = size**2 / max(float((size**2).sum()), 1e-12)
    return centre, directions[:2], share[:2]


def flattened(mean: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Belief means [R, K, N, d], d >= 2 -> plane coordinates [R, K, N, 2] and the names of the axes."""
    if mean.shape[-1] == 2:
        return mean, ("mean of z, first dimension", "mean of z, second dimension")
    centre, directions, share = principal_axes(mean[:, -1].reshape(-1, mean.shape[-1]))
    names = tuple(f"component {i + 1} ({share[i]:.0%})" for i in range(2))
    return (mean - centre) @ directions.T, names


@styled
def latent_space(mean: np.ndarray, task_axis: tuple[str, np.ndarray], exploration: int) -> Any:
    """The belief's mean before some shots, one point per test task and repetition, coloured by the task."""
    from matplotlib.cm import ScalarMappable

    label, values = task_axis
    shots = mean.shape[1]
    shown = sorted({min(1, shots - 1), min(max(exploration, 1), shots - 1), shots - 1})
    one = mean.shape[-1] == 1
    plane, names = (mean, (label, "mean of z")) if one else flattened(mean)
    figure, axes = new_figure(1, len(shown), height=3.5, sharex=True, sharey=True)
    scale, colours = task_scale(values), task_colours()
    for axis, k in zip(axes[0], shown, strict=True):
        points = plane[:, k].reshape(-1, plane.shape[-1])
        hues = np.tile(values, len(mean))
        x, y = (hues, points[:, 0]) if one else points.T
        axis.scatter(x, y, c=colours(scale(hues)), s=22, alpha=0.85, edgecolor=INK, linewidth=0.3)
        axis.set(xlabel=names[0], title=f"after {k} episode{'s' * (k != 1)}")
    axes[0, 0].set_ylabel(names[1])
    if not one:
        widen(axes[0, 0])
    kinds = np.unique(values)
    if len(kinds) <= 4:
        for kind in kinds:
            axes[0, 0].scatter([], [], color=colours(scale(kind)), s=22, label=f"{label} {kind:g}")
        legend_above(figure, axes)
    else:
        colour_bar(figure, axes, ScalarMappable(scale, colours), label)
    return figure


def widen(axis: Any) -> None:
    """No axis shorter than a quarter of the other, lest a direction without variance look like one."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    longest = max(right - left, high - low)
    for a, b, put in ((left, right, axis.set_xlim), (low, high, axis.set_ylim)):
        half = max(b - a, longest / 4) / 2
        put((a + b) / 2 - half, (a + b) / 2 + half)


# ----------------------------------------------------------------------------------------------- training metrics


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Moving mean that ignores NaN, same length."""
    good = np.isfinite(values)
    kernel = np.ones(window)
    total = np.convolve(np.where(good, values, 0.0), kernel, mode="same")
    count = np.convolve(good.astype(float), kernel, mode="same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def wants_log(values: np.ndarray) -> bool:
    """Positive numbers that span more than two decades."""
    good = values[np.isfinite(values)]
    return len(good) > 0 and good.min() > 0 and good.max() > 100 * good.min()


@styled
def training_metrics(groups: list[Group], units: dict[str, str]) -> Any:
    """Small multiples: a panel per metric, a line per group (its first seed, raw and smoothed). None: no metrics."""
    found = [(group.label, *metric_series(group.seeds[0])) for group in groups if group.seeds]
    series = [(label, metrics) for label, _, metrics in found]
    names = sorted(
        {name for _, metrics in series for name in metrics}, key=lambda name: (name.startswith("rate"), name)
    )
    if not names:
        return None
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = new_figure(rows, columns, height=1.75 * rows + 0.5, sharex=True)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        draw_metric(axis, name, series)
        axis.set_title(name, fontsize=9)
        axis.set_ylabel(units.get(name, "").replace("^2", "\u00b2"), fontsize=8)
    for axis in (axes[r, c] for c in range(columns) for r in range(rows) if r * columns + c + columns >= len(names)):
        axis.set_xlabel(found[0][1], fontsize=8.5)
        axis.tick_params(labelbottom=True)
        thousands(axis.xaxis)
    if len(groups) > 1:
        legend_above(figure, axes, columns=3)
    return figure


def draw_metric(axis: Any, name: str, series: list) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    everything = []
    for n, (label, found) in enumerate(series):
        if name not in found:
            continue
        x, values = found[name]
        everything.append(values)
        window = max(1, len(values) // 25)
        marker = "o" if len(values) <= 3 else ""
        look = {"color": colour(n), "linestyle": DASHES[n % 6], "marker": marker, "markersize": 4}
        axis.plot(x, values, color=colour(n), linewidth=0.7, alpha=0.3)
        axis.plot(x, smooth(values, window), linewidth=1.6, label=label, **look)
    if wants_log(np.concatenate(everything)):
        axis.set_yscale("log")
    else:
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axis.tick_params(labelsize=8)
