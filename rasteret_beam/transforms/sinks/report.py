"""Write the report of a job, which is put in place together with its other outputs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.summary.stored import from_bytes, to_bytes
from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.pages.report.compose import report_page
from rasteret_beam.pages.report.facts import Facts
from rasteret_beam.pages.report.run import with_run
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.transforms.runtime.files import check_file_writable, check_output, open_file
from rasteret_beam.transforms.sinks.commit import Output, Staged, write_whole
from rasteret_beam.transforms.sinks.protocol import RoundFileSink

ENDINGS = (".html", ".htm")


@dataclass(eq=False)
class WriteReport(RoundFileSink, beam.PTransform):
    """Write the page of a summary, one element of bytes, to a file on any Beam filesystem.

    Parameters
    ----------
    path : str or pathlib.Path
        Ends in ``.html``.
    facts : Facts

    Raises
    ------
    InputError
        The path has another ending.
    """

    path: str
    facts: Facts = field(repr=False)
    target: Output = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.path = os.fspath(self.path)
        if not self.path.lower().endswith(ENDINGS):
            raise InputError(f"report is {self.path!r}; give the path of a page, such as out/report.html")
        check_output(self.path, "report")
        self.path = absolute(self.path)
        self.target = Output(self.path)

    @property
    def place(self) -> str:
        return self.path

    @property
    def prefixes(self) -> list[str]:
        return [self.path]

    def check(self, options: PipelineOptions) -> None:
        """Find out whether the page can be written.

        Raises
        ------
        OutputError
        """
        check_file_writable(self.path)

    def staged(self) -> beam.PTransform:
        return beam.Map(_staged, self.target, self.facts).with_output_types(bytes)

    def in_round(self) -> beam.PTransform:
        """From one summary to the file that keeps it until the last round."""
        return beam.Map(_kept, self.target.temporary).with_output_types(list[str])

    def after_rounds(self, files: Sequence[str], options: PipelineOptions) -> Staged:
        whole = Summary()
        for path in files:
            with open_file(path) as file:
                whole.merge(from_bytes(file.read()))
        return Staged.from_bytes(_staged(to_bytes(whole), self.target, self.facts))

    def complete(self, counts: Mapping[str, int], seconds: float) -> None:
        """Add the counters of the run to the page that is in place."""
        with open_file(self.path) as file:
            page = file.read().decode()
        whole = with_run(page, self.facts.plan, self.facts.plan_note, counts, seconds)
        write_whole(self.path, whole.encode(), f".fresh-{self.target.run}")


def _staged(summary: bytes, target: Output, facts: Facts) -> bytes:
    place = f"{target.temporary}/{uuid4().hex}.html"
    _write(place, report_page(from_bytes(summary), facts).encode())
    return Staged(target, {target.path: place}, _earlier).to_bytes()


def _earlier(path: str) -> list[str]:
    """The page is replaced by that of the same name."""
    return []


def _kept(summary: bytes, folder: str) -> list[str]:
    place = f"{folder}/{uuid4().hex}.summary"
    _write(place, summary)
    return [place]


def _write(path: str, data: bytes) -> None:
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
