"""Dead letters of jobs over polygons, tried again."""

from abc import abstractmethod
from typing import Any, ClassVar

import apache_beam as beam
import pyarrow as pa

from rasteret_beam.collection.collection import Collection
from rasteret_beam.kernels.sampling.dead_letters import LetterKind
from rasteret_beam.polygon_options import PolygonOptions
from rasteret_beam.readers.storage.listing import Paths
from rasteret_beam.schema import kept_polygon_fields
from rasteret_beam.transforms.polygons.reading import ReadAgainFn, read_by
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.sources.dead_letters import DeadLetterFiles
from rasteret_beam.transforms.sources.table_files import shown


class PolygonDeadLetters(beam.PTransform):
    """What a retry is made of; a subclass says how it reads a dead letter, and sets ``options``.

    Attributes
    ----------
    kind : LetterKind
    outputs : callable
        What is given with ``on_error="dead_letter"``: a named tuple of rows, None, and dead letters.
    """

    kind: ClassVar[LetterKind]
    outputs: ClassVar[Any]
    options: PolygonOptions

    def __init__(self, collection: Collection, path: Paths):
        super().__init__()
        self.collection = collection
        self.path = path
        self._letters = DeadLetterFiles(path, self.kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.path)})"

    @abstractmethod
    def reading(self, settings: IndexSettings[Any]) -> ReadAgainFn[Any]:
        """The DoFn that reads dead letters."""

    @property
    def bands(self) -> list[str]:
        """Those of the dead letters."""
        return self._letters.bands

    @property
    def kept(self) -> list[pa.Field]:
        """The columns of the polygons that pass through."""
        return kept_polygon_fields(self._letters.first_schema)

    def expand(self, begin: Any) -> Any:
        letters = begin | self._letters
        settings = IndexSettings.of(self.collection, self.bands, self.options)
        rows, lost = read_by(self.reading(settings), letters)
        return rows if lost is None else self.outputs(rows, dead_letters=lost)
