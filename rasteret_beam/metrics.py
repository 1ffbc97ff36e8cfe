"""Names and units of every figure that is counted, in one place.

=====================  ========  =====================================================
name                   unit      counted when
=====================  ========  =====================================================
points_in              points    a batch of points is routed
points_sampled         points    of those, the ones at least one record contains
points_unsampled       points    of those, the others
unsampled_<reason>     points    the same, by reason (``schema.UNSAMPLED_REASONS``)
values_routed          values    routing finds a point on a record that has a wanted band
chunks_out             chunks    routing emits the points of one block of tiles
samples_out            rows      sampling emits rows of the sample table
values_sampled         values    of those routed, the ones that are in the sample table
values_dead_lettered   values    of those routed, the ones that a tile could not be read for
dead_letters           tiles     a tile of a band is given up, with its points or the windows of its chips
tiles_decoded          tiles     a tile of one band is decoded
tile_cache_hits        tiles     a decoded tile is found in the cache instead
tiles_indexed          tiles     of those, decoded by the indexed engine, without reading a header
tile_bytes_read        bytes     compressed bytes of the decoded tiles, where the format says
mask_tiles_read        tiles     the file's own mask of a tile of one band is read
range_requests         requests  a byte range is asked for: of tiles, or of what GDAL reads of a remote file
range_bytes            bytes     of those ranges, gaps between tiles included
read_retries           requests  a byte range is asked for again
datasets_opened        files     a raster file is opened
dataset_cache_hits     files     an open raster file is found in the cache instead
rows_written           rows      rows reach a Parquet file
polygons_in            polygons  a batch of polygons is routed
polygons_matched       polygons  of those, the ones at least one record overlaps
polygons_unmatched     polygons  of those, the others
unmatched_<reason>     polygons  the same, by reason (``schema.UNMATCHED_REASONS``)
chips_routed           rows      routing emits windows of chips, times the bands to read there
chips_out              rows      reading emits rows of the chip table
chips_dead_lettered    rows      of those routed, the ones that a tile could not be read for
chip_pixels            pixels    the same, by their pixels
geotiffs_written       files     the GeoTIFF file of a chip is put in place
records_in             records   a batch of records is to be built into a collection
records_read           records   of those, the ones of which at least one file could be read
records_left_out       records   of those, the others
records_written        records   a record reaches a file of the collection
=====================  ========  =====================================================

In a stream, ``values_routed`` less ``values_sampled`` and ``values_dead_lettered`` are those of points that came
later than their window allows, which Beam drops.
"""

from threading import Lock

NAMESPACE = "rasteret_beam"

POINTS_IN = "points_in"
POINTS_SAMPLED = "points_sampled"
POINTS_UNSAMPLED = "points_unsampled"
CHUNKS_OUT = "chunks_out"
VALUES_ROUTED = "values_routed"
VALUES_SAMPLED = "values_sampled"
VALUES_DEAD_LETTERED = "values_dead_lettered"
DEAD_LETTERS = "dead_letters"
SAMPLES_OUT = "samples_out"
TILES_DECODED = "tiles_decoded"
TILES_INDEXED = "tiles_indexed"
TILE_CACHE_HITS = "tile_cache_hits"
TILE_BYTES_READ = "tile_bytes_read"
MASK_TILES_READ = "mask_tiles_read"
RANGE_REQUESTS = "range_requests"
RANGE_BYTES = "range_bytes"
READ_RETRIES = "read_retries"
DATASETS_OPENED = "datasets_opened"
DATASET_CACHE_HITS = "dataset_cache_hits"
ROWS_WRITTEN = "rows_written"
POLYGONS_IN = "polygons_in"
POLYGONS_MATCHED = "polygons_matched"
POLYGONS_UNMATCHED = "polygons_unmatched"
CHIPS_ROUTED = "chips_routed"
CHIPS_OUT = "chips_out"
CHIPS_DEAD_LETTERED = "chips_dead_lettered"
CHIP_PIXELS = "chip_pixels"
GEOTIFFS_WRITTEN = "geotiffs_written"
RECORDS_IN = "records_in"
RECORDS_READ = "records_read"
RECORDS_LEFT_OUT = "records_left_out"
RECORDS_WRITTEN = "records_written"


def unsampled(reason: str) -> str:
    """Name of the counter of points that were left without a sample for this reason."""
    return f"unsampled_{reason}"


def unmatched(reason: str) -> str:
    """Name of the counter of polygons that were left without a chip for this reason."""
    return f"unmatched_{reason}"


class Counters:
    """Counts that threads of one process share."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def take(self) -> dict[str, int]:
        """The counts since the last call, which start again at nothing."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


PROGRESS = Counters()
"""What the DoFns of this process have counted so far; a ticker shows it during a local run."""
