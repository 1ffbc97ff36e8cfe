"""What a report shows beside the summary of the rows: facts that are known before a job runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """Facts about a job, as texts.

    Attributes
    ----------
    title : str
    collection : {name: text}
    options, versions, outputs : {name: text}
    plan : {counter: number}
        What the job was planned to read, by counters of :mod:`rasteret_beam.metrics`.
    plan_note : str
        Why there is no plan.
    footprints : sequence of bytes
        WKB of the records' outlines in ``footprint_crs``.
    footprint_crs : str
    footprint_note : str
        What the footprints leave out.
    point_crs : str
        CRS of the points; empty if only its EPSG code in the rows is known.
    made : str
        When the report was made.
    """

    title: str = "Samples"
    collection: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, int] | None = None
    plan_note: str = ""
    footprints: Sequence[bytes] = ()
    footprint_crs: str = ""
    footprint_note: str = ""
    point_crs: str = ""
    made: str = ""
