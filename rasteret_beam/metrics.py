"""Names and units of all counters.

=====================  ========  =====================================================
name                   unit      counts
=====================  ========  =====================================================
points_in              points    points that are routed
points_sampled         points    of those, points in at least one record
points_unsampled       points    of those, all others
unsampled_<reason>     points    the same, by reason (``schema.UNSAMPLED_REASONS``)
values_routed          values    bands to sample at the points, over all records; once where points are keyed by place
chunks_out             chunks    chunks that routing emits: the points of one block of tiles
samples_out            rows      rows of the sample table
values_sampled         values    of those routed, values in the sample table
values_dead_lettered   values    of those routed, values of tiles that could not be read
values_left_out        values    of those routed, values without a row: dropped, or of a band that no record has there
candidates_walked      values    values (or chips) looked at in further records, as those of better ones are not valid
dead_letters           tiles     tiles of a band that are given up, with their points or the windows of their chips
tiles_decoded          tiles     decoded tiles of one band
tile_cache_hits        tiles     decoded tiles that are found in the cache
tiles_indexed          tiles     of the decoded ones, tiles read by the index, without a header
tile_bytes_read        bytes     compressed bytes of the decoded tiles, if the format gives them
mask_tiles_read        tiles     tiles of a file's mask that are read for one band
range_requests         requests  requests for byte ranges, of tiles or by GDAL for remote files
range_bytes            bytes     bytes of those ranges, including gaps between tiles
read_retries           requests  retries of requests for byte ranges
datasets_opened        files     raster files that are opened
dataset_cache_hits     files     open raster files that are found in the cache
rows_written           rows      rows that are written to Parquet files
polygons_in            polygons  polygons that are routed
polygons_matched       polygons  of those, polygons that overlap at least one record
polygons_unmatched     polygons  of those, all others
unmatched_<reason>     polygons  the same, by reason (``schema.UNMATCHED_REASONS``)
chips_routed           rows      windows of chips to read, times the bands to read
chips_out              rows      rows of the chip table
chips_dead_lettered    rows      of those routed, rows whose tiles could not be read
chip_pixels            pixels    pixels of the rows of the chip table
zones_routed           rows      polygons, records (or moments) and bands to make statistics of
zones_out              rows      rows of the table of zonal statistics that have a record
zones_dead_lettered    rows      of those routed, rows whose tiles could not be read
zones_without_record   rows      rows of the table of zonal statistics of bands without a record, with ``join="left"``
polygons_read          polygons  of those matched, polygons that are read for zonal statistics
zone_pixels            pixels    pixels under the polygons that are read, of each record and band
geotiffs_written       files     GeoTIFF files that are put in place
items_found            items     STAC items that are found; shown while they are read
records_in             records   records to build a collection from
records_read           records   of those, records with at least one readable file
records_left_out       records   of those, all others
records_written        records   records that are written to files of the collection
=====================  ========  =====================================================

Values sampled, dead-lettered and left out are those routed. In a stream, what is missing is the number of values of
points that exceed the allowed lateness, which Beam drops.

Chips read and dead-lettered are those routed. With ``skip_invalid``, routing counts one row for each polygon and band
that has a chip, and reading adds the further windows of divided chips when their records are chosen.

Rows of zonal statistics that are made and dead-lettered are those routed; reading counts them all, and the polygons
that it is given, which are those matched. Rows without a record (``join="left"``) are in none of them.

Points are found to be sampled when they are routed; where ``skip_invalid``, ``invalid="drop"`` or ``join="left"``
decides about them, when their values are known.
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
VALUES_LEFT_OUT = "values_left_out"
CANDIDATES_WALKED = "candidates_walked"
VALUES_DONE = (VALUES_SAMPLED, VALUES_DEAD_LETTERED, VALUES_LEFT_OUT)
"""What becomes of the values that are routed."""

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
ZONES_ROUTED = "zones_routed"
ZONES_OUT = "zones_out"
ZONES_DEAD_LETTERED = "zones_dead_lettered"
ZONES_WITHOUT_RECORD = "zones_without_record"
POLYGONS_READ = "polygons_read"
ZONE_PIXELS = "zone_pixels"
GEOTIFFS_WRITTEN = "geotiffs_written"
ITEMS_FOUND = "items_found"
RECORDS_IN = "records_in"
RECORDS_READ = "records_read"
RECORDS_LEFT_OUT = "records_left_out"
RECORDS_WRITTEN = "records_written"


def unsampled(reason: str) -> str:
    """Name of the counter of points without a sample for a reason."""
    return f"unsampled_{reason}"


def unmatched(reason: str) -> str:
    """Name of the counter of polygons without a record for a reason."""
    return f"unmatched_{reason}"


class Counters:
    """Thread-safe counts."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def take(self) -> dict[str, int]:
        """The counts since the last call; resets them."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)


PROGRESS = Counters()
"""Counts of the DoFns of this process, for the progress line of a local run."""
