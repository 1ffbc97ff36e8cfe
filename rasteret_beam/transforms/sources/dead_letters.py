"""Files of dead letters of an earlier run."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, listed, without_secrets
from rasteret_beam.kernels.sampling.dead_letters import LetterKind, points_of
from rasteret_beam.readers.storage.listing import Paths
from rasteret_beam.transforms.runtime.files import find_files, open_parquet


class DeadLetterFiles(beam.PTransform):
    """Dead letters, each as a batch of one row.

    Parameters
    ----------
    path : str or pathlib.Path, or a list of such
        Parquet: a file, a folder or a glob.
    kind : LetterKind

    Attributes
    ----------
    bands : list of str
        Those of the dead letters.
    first_schema : Schema
        Of what the first dead letter has lost; empty if there is none.
    settings : bytes or None
        What all dead letters have in common, if they are of a kind that has settings.

    Raises
    ------
    InputError
        When made: the files are not dead letters of this kind, or are those of runs with different settings. When
        applied: there is no dead letter in them.
    """

    def __init__(self, path: Paths, kind: LetterKind):
        super().__init__()
        self.kind = kind
        self.files = find_files(path)
        bands: dict[str, None] = {}
        self.first_schema = pa.schema([])
        self.settings: bytes | None = None
        for file in self.files:
            for letters in _read(kind, file):
                bands |= dict.fromkeys(letters["band"].to_pylist())
                self._take(letters, file)
        self.bands = list(bands)

    def _take(self, letters: pa.RecordBatch, file: str) -> None:
        """Keep the first schema and the settings of some dead letters."""
        if len(letters) and not len(self.first_schema):
            self.first_schema = points_of(letters, 0, self.kind).schema
            self.settings = _settings(self.first_schema, self.kind)
        if self.kind.settings is None:
            return
        for row in range(len(letters)):
            schema = points_of(letters, row, self.kind).schema
            if _settings(schema, self.kind) != self.settings or not schema.equals(self.first_schema):
                raise InputError(
                    f"the dead letters of {without_secrets(file)} and {without_secrets(self.files[0])} are of runs "
                    "with other options or columns; try them again one by one"
                )

    def expand(self, begin: Any) -> beam.PCollection[pa.RecordBatch]:
        if not self.bands:
            raise InputError(
                f"{without_secrets(listed(self.files))} holds no dead letters: there is nothing to try again"
            )
        return (
            begin
            | "Files" >> beam.Create(self.files)
            | "Read" >> beam.FlatMap(partial(_rows, self.kind)).with_output_types(pa.RecordBatch)
            | "Spread" >> beam.Reshuffle()
        )


def _settings(schema: pa.Schema, kind: LetterKind) -> bytes | None:
    return None if kind.settings is None else (schema.metadata or {}).get(kind.settings)


def _read(kind: LetterKind, path: str) -> Iterator[pa.RecordBatch]:
    with open_parquet(path) as file:
        if not file.schema_arrow.equals(kind.schema):
            raise InputError(
                f"{without_secrets(path)} holds no dead letters: its columns are {listed(file.schema_arrow.names)}, "
                f"not {listed(kind.schema.names)}"
            )
        yield from file.iter_batches(batch_size=64)


def _rows(kind: LetterKind, path: str) -> Iterator[pa.RecordBatch]:
    for letters in _read(kind, path):
        for number in range(len(letters)):
            yield letters.slice(number, 1)
