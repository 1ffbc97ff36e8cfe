"""Write each chip to a GeoTIFF file, and replace the files of an earlier run."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.sampling.chip_rows import decode_chip, exact_fill
from rasteret_beam.readers.gdal.geotiff import geotiff_bytes
from rasteret_beam.readers.storage.local_files import writing
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.files import check_output, check_writable, matching
from rasteret_beam.transforms.runtime.one_list import InOneList
from rasteret_beam.transforms.sinks.commit import Output, PutInPlace, Staged
from rasteret_beam.transforms.sinks.protocol import FileSink

LONGEST_PART = 80
OURS = re.compile(r"\d+@[^@/]+@[^@/]+(@r\d+c\d+)?\.tif")
TAGS = ("geometry_id", "record_id", "collection", "band")


@dataclass(eq=False)
class WriteChipsToGeoTiff(FileSink, beam.PTransform):
    """Write each chip to ``folder/<geometry_id>@<record_id>@<band>.tif``; returns the file names.

    A window of a split chip has ``@r<row>c<col>``, its first pixel on the record's grid, before the extension. Unsafe
    characters of ids are percent-encoded, and ids longer than 80 characters are truncated and get a digest. Pixels are
    compressed with deflate; the nodata value is the chip's fill; ids are stored as tags.

    Files are written to a temporary folder beside the output and moved at the end, after the chips of an earlier run
    were deleted from the folder; its other files stay. One worker moves all files, so this sink is for thousands of
    chips; use Parquet for millions.

    Parameters
    ----------
    folder : str or pathlib.Path
        A path on any Beam filesystem.
    """

    folder: str
    _: KW_ONLY
    target: Output = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder = os.fspath(self.folder)
        if not self.folder.strip().rstrip("/"):
            raise InputError(f"folder of GeoTIFFs is {self.folder!r}; give a path")
        check_output(self.folder, "folder of GeoTIFFs")
        self.folder = absolute(self.folder).rstrip("/")
        self.target = Output(self.folder)

    def expand(self, chips: beam.PCollection) -> beam.PCollection[str]:
        return chips | "Stage" >> self.staged() | "PutInPlace" >> PutInPlace()

    @property
    def place(self) -> str:
        return f"{self.folder}/*.tif"

    @property
    def prefixes(self) -> list[str]:
        return [self.folder]

    def check(self, options: PipelineOptions) -> None:
        """Find out whether the folder, and files in it, can be written.

        Raises
        ------
        OutputError
        """
        check_writable(self.folder)
        check_writable(f"{self.folder}/chip")

    def staged(self) -> "StageGeoTiffs":
        """Write the files without putting them in place; :class:`.commit.PutInPlace` does so for several sinks."""
        return StageGeoTiffs(self.target)


@dataclass(eq=False)
class StageGeoTiffs(beam.PTransform):
    """Write each chip to a GeoTIFF in the temporary folder of an output."""

    target: Output

    def expand(self, chips: beam.PCollection) -> beam.PCollection[bytes]:
        return (
            chips
            | "Write" >> beam.FlatMap(_write, self.target.temporary).with_output_types(tuple[str, str])
            | "Collect" >> InOneList()
            | "Name" >> beam.Map(_staged, self.target).with_output_types(bytes)
        )


def chip_name(chip: Mapping[str, Any]) -> str:
    """The unique file name of a chip, from its ids."""
    name = f"{chip['geometry_id']}@{_safe(chip['record_id'])}@{_safe(chip['band'])}"
    return name + (f"@r{chip['window_row']}c{chip['window_col']}" if chip["windows"] > 1 else "") + ".tif"


def _safe(text: str) -> str:
    quoted = quote(text, safe="").replace("~", "%7E")
    if len(quoted) <= LONGEST_PART:
        return quoted
    return f"{quoted[:LONGEST_PART]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _write(chips: pa.RecordBatch, temporary: str) -> Iterator[tuple[str, str]]:
    for number in range(len(chips)):
        (chip,) = chips.slice(number, 1).to_pylist()
        pixels, valid = decode_chip(chip)
        tags = {name: str(chip[name]) for name in TAGS}
        if chip["datetime"] is not None:
            tags["datetime"] = chip["datetime"].isoformat()
        fill = exact_fill(pixels, valid, chip["fill"])
        data = geotiff_bytes(pixels, chip["transform"], chip["crs"], fill, chip["band"], tags)
        path = f"{temporary}/{uuid4().hex}.tif"
        with writing(path), FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        yield chip_name(chip), path


def earlier_chips(folder: str) -> list[str]:
    """Chips of an earlier run in a folder."""
    return [path for path in matching(f"{folder}/", "*@*.tif") if OURS.fullmatch(path.rsplit("/", 1)[-1])]


def _staged(written: list[tuple[str, str]], target: Output) -> bytes:
    count({metrics.GEOTIFFS_WRITTEN: len(written)})
    moves = {f"{target.path}/{name}": path for name, path in sorted(written)}
    return Staged(target, moves, earlier_chips).to_bytes()
