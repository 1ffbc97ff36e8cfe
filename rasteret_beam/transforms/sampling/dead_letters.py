"""Dead letters of an earlier run, tried again."""

from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.index.band_facts import warn_of_rounding
from rasteret_beam.errors import InputError, listed, without_secrets
from rasteret_beam.kernels.sampling.dead_letters import points_of, values_lost
from rasteret_beam.options import SampleOptions, takes_options
from rasteret_beam.readers.storage.listing import Paths
from rasteret_beam.schema import DEAD_LETTER_SCHEMA, kept_fields
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.files import find_files, open_parquet
from rasteret_beam.transforms.sampling.index_settings import index_settings
from rasteret_beam.transforms.sampling.sampling import SampleFn, sampled_by
from rasteret_beam.transforms.sources.table_files import shown


class SampleDeadLetters(beam.PTransform):
    """Tiles that an earlier run gave up, with just the points that were in them, to batches of samples.

    Parameters
    ----------
    collection : Collection
        The same, or one built anew in which the files are mended.
    path : str or pathlib.Path, or a list of such
        Parquet written of ``SamplePoints(...).dead_letters``: a file, a folder or a glob.
    <options>
    options : SampleOptions, optional
        All options as one value; ``max_distance_pixels`` should be that of the earlier run.

    Raises
    ------
    InputError
        When made: the files are not dead letters, or an option cannot be used. When applied: the collection lacks a
        band.
    """

    @takes_options(SampleOptions, lambda option: option.name not in ("match", "layout"))
    def __init__(self, collection: Collection, path: Paths, *, options: SampleOptions):
        super().__init__()
        self.collection = collection
        self.path = path
        self.options = options
        self._files = find_files(path)
        self._bands: dict[str, None] = {}
        self._kept: Sequence[pa.Field] = ()
        for file in self._files:
            for letters in _read(file):
                self._bands |= dict.fromkeys(letters["band"].to_pylist())
                self._kept = self._kept or (kept_fields(points_of(letters, 0).schema) if len(letters) else ())

    def __repr__(self) -> str:
        return f"SampleDeadLetters({shown(self.path)})"

    @property
    def bands(self) -> list[str]:
        """Those of the dead letters."""
        return list(self._bands)

    @property
    def kept(self) -> list[pa.Field]:
        """The columns of the points that pass through."""
        return list(self._kept)

    def expand(self, begin: Any) -> Any:
        if not self.bands:
            raise InputError(
                f"{without_secrets(listed(self._files))} holds no dead letters: there is nothing to try again"
            )
        settings = index_settings(self.collection, self.bands, self.options)
        warn_of_rounding(self.collection, settings.bands)
        letters = (
            begin
            | "Files" >> beam.Create(self._files)
            | "Read" >> beam.FlatMap(_rows).with_output_types(pa.RecordBatch)
            | "Spread" >> beam.Reshuffle()
        )
        return sampled_by(_SampleAgainFn(settings), letters)


class _SampleAgainFn(SampleFn):
    def process(
        self,
        letters: pa.RecordBatch,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        assert self.stream is not None
        count({metrics.VALUES_ROUTED: values_lost(letters)})
        record_id, band = (letters[name][0].as_py() for name in ("record_id", "band"))
        yield from self._emit(
            self.stream.push_again((timestamp, (window,), pane), record_id, band, points_of(letters, 0))
        )


def _read(path: str) -> Iterator[pa.RecordBatch]:
    with open_parquet(path) as file:
        if not file.schema_arrow.equals(DEAD_LETTER_SCHEMA):
            raise InputError(
                f"{without_secrets(path)} holds no dead letters: its columns are {listed(file.schema_arrow.names)}, "
                f"not {listed(DEAD_LETTER_SCHEMA.names)}"
            )
        yield from file.iter_batches(batch_size=64)


def _rows(path: str) -> Iterator[pa.RecordBatch]:
    """Each dead letter as a batch of one row."""
    for letters in _read(path):
        for number in range(len(letters)):
            yield letters.slice(number, 1)
