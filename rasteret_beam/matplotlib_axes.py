"""Axes to draw on, their labels, and notes on the picture."""

from typing import Any

from rasteret_beam.errors import InputError, MissingInputError, how_to_install
from rasteret_beam.kernels.geo.map_axes import MapAxes

NOTE = "rasteret_beam.note"
"""The gid of the text that says what a picture leaves out."""


def pyplot() -> Any:
    """matplotlib.pyplot.

    Raises
    ------
    MissingInputError
        Matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as found
    except ImportError as error:
        raise MissingInputError(f"plots need matplotlib, which is not installed: {how_to_install('plot')}") from error
    return found


def axes_of(ax: Any, **size: Any) -> Any:
    """The given Axes, or those of a new figure.

    Raises
    ------
    InputError
        ``ax`` is something else.
    """
    plt = pyplot()
    if ax is None:
        return plt.subplots(layout="constrained", **size)[1]
    if not isinstance(ax, plt.Axes):
        raise InputError(f"ax is a {type(ax).__name__}; give Axes of Matplotlib, such as plt.subplots()[1]")
    return ax


def draw_map_axes(ax: Any, names: MapAxes, middle: float) -> None:
    """Label the axes of a map, and give it the proportions that it has on the ground at this y."""
    ax.set(xlabel=names.x, ylabel=names.y, aspect=names.aspect(middle))
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.locator_params(axis="x", nbins=6)
    ax.xaxis.set_inverted(names.west)
    ax.yaxis.set_inverted(names.south)


def draw_colour_bar(ax: Any, shown: Any, label: str, **settings: Any) -> None:
    """A colour bar beside the axes, less high than these."""
    ax.figure.colorbar(shown, ax=ax, label=label, shrink=0.8, aspect=30, **settings)


def draw_note(ax: Any, text: str) -> None:
    """Write what a picture leaves out into its lower left corner."""
    if text:
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        ax.text(0.01, 0.01, text, transform=ax.transAxes, fontsize="x-small", va="bottom", bbox=box, gid=NOTE)
