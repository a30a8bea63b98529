"""The look of every picture: palette, fonts, figures that fit the report's page, SVG that follows the page's colours.

Object-oriented matplotlib only, imported when a picture is made. Imports nothing of ours.
"""

import functools
import io
import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

# Okabe and Ito's palette, told apart under all common kinds of colour blindness; darker blue first
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 3)), (0, (1, 1)))  # with SERIES, for print without colour
INK, MUTED, GRID = "#000000", "#6b7280", "#d4d7dc"
WIDTH = 9.4  # inches: the text width of the report at its largest
# hex colour in a figure -> what the page may redefine (dark mode); the hex stays as the fallback
VARIABLES = {
    **{colour: f"var(--series-{k}, {colour})" for k, colour in enumerate(SERIES)},
    INK: "currentColor",
    MUTED: f"var(--muted, {MUTED})",
    GRID: f"var(--grid, {GRID})",
}

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "figure.dpi": 100,
}


def styled(draw: Callable) -> Callable:
    """Run `draw` with the look of this module; matplotlib's global settings stay as they were."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(rows: int = 1, cols: int = 1, *, width: float = WIDTH, height: float = 3.4, **kwargs: Any) -> tuple:
    """(Figure, axes [rows, cols]); sizes in inches. To be called under `styled`. kwargs: those of Figure.subplots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.04)
    return figure, figure.subplots(rows, cols, squeeze=False, **kwargs)


def task_colours() -> Any:
    """The colour map of task parameters and shots: viridis without the ends that vanish on dark or white paper."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["viridis"](np.linspace(0.17, 0.9, 256)), "nacre")


def task_scale(values: np.ndarray) -> Any:
    """Values -> 0 to 1 for `task_colours`, also where all of them are one."""
    from matplotlib.colors import Normalize

    return Normalize(values.min(), values.max() + (np.ptp(values) == 0))


def shot_colours(shots: int) -> tuple[Any, Any]:
    """How episodes of a trial are coloured: a norm for their numbers, the colour map."""
    from matplotlib.colors import BoundaryNorm

    return BoundaryNorm(np.arange(shots + 1) - 0.5, 256), task_colours()


LETTERS = 10  # of a label, per inch of a figure's height


def colour_bar(figure: Any, axes: Any, mappable: Any, label: str) -> Any:
    """One bar beside all axes. Its label breaks into lines where the figure is low."""
    bar = figure.colorbar(mappable, ax=axes, aspect=30, pad=0.015, fraction=0.03)
    bar.set_label(textwrap.fill(label, max(12, round(LETTERS * figure.get_figheight()))))
    bar.outline.set_visible(False)
    return bar


def shot_bar(figure: Any, axes: Any, shots: int, label: str = "shot") -> None:
    """The bar of `shot_colours`."""
    from matplotlib.cm import ScalarMappable

    bar = colour_bar(figure, axes, ScalarMappable(*shot_colours(shots)), label)
    bar.set_ticks(np.unique(np.linspace(0, shots - 1, min(shots, 6)).round()))
    bar.ax.minorticks_off()


def legend_above(figure: Any, axes: Any, columns: int = 6) -> None:
    """One legend for all axes, above them and to the left; each label once, grey lines (references) last."""
    found = {}
    for axis in np.ravel(np.asarray(axes, dtype=object)):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        found = dict(sorted(found.items(), key=lambda item: getattr(item[1], "get_color", str)() == MUTED))
        columns = min(columns, len(found))
        figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns, handlelength=2.2,
                      columnspacing=1.6, borderaxespad=0.0)  # fmt: skip


def whole_ticks(axis: Any) -> None:
    """Ticks of a matplotlib axis (ax.xaxis) at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def thousands(axis: Any) -> None:
    """Tick labels like 150k and 2.5M on a matplotlib axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def short_number(value: float) -> str:
    """1500 -> 1.5k, 2_500_000 -> 2.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


@styled
def to_svg(figure: Any, prefix: str) -> str:
    """The figure as an <svg> element to stand inside a page: no XML head, ids that begin with `prefix`, no fixed size,
    transparent, and the palette's colours as CSS variables so that the page's dark mode holds for figures too."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head).group()
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body).replace("url(#", f"url(#{prefix}-")
    body = re.sub(r"#[0-9a-f]{6}\b(?=[;\" ])", lambda found: VARIABLES.get(found.group(), found.group()), body)
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), body)  # 0.01 pt is enough
    return f'<svg {view_box} role="img" preserveAspectRatio="xMidYMid meet">{body}'.strip()
