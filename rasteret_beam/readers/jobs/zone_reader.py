"""Reading zones: the pixels that polygons cover, tile by tile, for many polygons at the same time."""

from rasteret_beam.readers.tiles.source import TileSource


class ZoneReader:
    """Reads the pixels of zones; one object serves all threads of a process.

    Parameters
    ----------
    source : TileSource, optional
    """

    def __init__(self, source: TileSource | None = None):
        self.source = source or TileSource()

    def close(self) -> None:
        """End the threads and close what is open."""
        self.source.close()
