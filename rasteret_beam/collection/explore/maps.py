"""``Collection.explore``: footprints by date on a map of Folium, Lonboard or Matplotlib."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rasteret_beam.collection.explore.footprints import Footprints, footprints_of
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, MissingInputError, did_you_mean, how_to_install, listed

LIBRARIES = ("folium", "lonboard", "matplotlib")
"""In the order in which they are looked for."""

EXTRAS = {"folium": "explore", "lonboard": "explore", "matplotlib": "plot"}
DEFAULT_TILES = "OpenStreetMap"
MAX_FOOTPRINTS = 2_000


def explore(
    collection: RecordSelection,
    library: str | None = None,
    *,
    max_footprints: int = MAX_FOOTPRINTS,
    tiles: str | None = DEFAULT_TILES,
    ax: Any = None,
) -> Any:
    """A map of the footprints, coloured by the newest date of their records.

    Footprints that several records have are drawn once. No raster is opened.

    Parameters
    ----------
    library : {"folium", "lonboard", "matplotlib"}, optional
        What draws it; by default the first one that is installed, or Matplotlib with ``ax``. Base tiles come from the
        network, and so does the JavaScript that a map of Folium loads. Lonboard with ``tiles=None``, and Matplotlib,
        need no network.
    max_footprints : int
        Of more footprints, a random but repeatable choice is drawn, and the map notes it.
    tiles : str, optional
        Base map of Folium (any name or URL that it knows) and Lonboard (any text); None for none. Footprints on other
        bodies and in local CRSs never have one.
    ax : matplotlib.axes.Axes, optional
        Where Matplotlib draws; by default on a new figure.

    Returns
    -------
    folium.Map, lonboard.Map or matplotlib.axes.Axes
        Notebooks show it.

    Raises
    ------
    InputError
        The collection has no footprints, or footprints in several CRSs; or an argument cannot be used.
    MissingInputError
        The library is not installed.
    """
    if isinstance(max_footprints, bool) or not isinstance(max_footprints, int) or max_footprints < 1:
        raise InputError(f"max_footprints is {max_footprints!r}; give a whole number of at least 1")
    if not isinstance(tiles, str | None):
        raise InputError(f"tiles is {tiles!r}; give the name of a base map, or None")
    draw = _drawer(_chosen(library, ax))
    found = footprints_of(collection, max_footprints)
    return draw(found, collection.name, tiles if found.on_earth else None, ax)


def _chosen(library: Any, ax: Any) -> str:
    if library is not None and library not in LIBRARIES:
        near = did_you_mean(str(library), LIBRARIES)
        raise InputError(f"library is {library!r}{near}; give one of {listed(LIBRARIES)}, or None")
    if ax is not None:
        if library not in (None, "matplotlib"):
            raise InputError(
                f"library is {library!r}, but ax is given, on which matplotlib draws; leave one of them out"
            )
        return "matplotlib"
    if library is not None:
        return str(library)
    there = next((name for name in LIBRARIES if find_spec(name) is not None), None)
    if there is None:
        raise MissingInputError(
            f"a map needs one of {listed(LIBRARIES)}, none of which is installed: {how_to_install('explore')}"
        )
    return there


def _drawer(library: str) -> Callable[[Footprints, str, str | None, Any], Any]:
    """The function that draws with a library.

    Raises
    ------
    MissingInputError
        It is not installed.
    """
    try:
        import_module(library)
    except ImportError as error:
        raise MissingInputError(
            f"a map of {library} needs the package {library}, which is not installed: {how_to_install(EXTRAS[library])}"
        ) from error
    return import_module(f"rasteret_beam.collection.explore.{library}_map").draw  # type: ignore[no-any-return]
