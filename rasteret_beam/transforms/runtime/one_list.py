"""All elements of a bounded PCollection as one list."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.typehints import typehints


@dataclass(eq=False)
class InOneList(beam.PTransform):
    """All elements of a bounded PCollection as one list, empty where there are none.

    As ``beam.combiners.ToList``, which groups the elements before it makes a side input of them, with two steps
    instead of fourteen: a job with two sinks has a third less to set up.
    """

    def expand(self, elements: beam.PCollection) -> beam.PCollection[list[Any]]:
        as_list = beam.Map(_listed, beam.pvalue.AsIter(elements))
        once = elements.pipeline | "Once" >> beam.Impulse()
        return once | "List" >> as_list.with_output_types(typehints.List[elements.element_type])


def _listed(_: bytes, elements: Iterable[Any]) -> list[Any]:
    return list(elements)
