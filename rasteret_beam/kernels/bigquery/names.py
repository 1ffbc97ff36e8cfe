"""Parse names of BigQuery tables."""

import re
from dataclasses import dataclass

from rasteret_beam.errors import InputError

NAME = re.compile(r"(?:(?P<project>[^`$]+)[:.])?(?P<dataset>\w+)\.(?P<table>[^.:`$]+)")


@dataclass(frozen=True)
class TableName:
    """Project, dataset and table; written ``project:dataset.table`` or ``project.dataset.table``."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, text: str, project: str | None = None) -> "TableName":
        """The table of a text; ``project`` is the default project.

        Raises
        ------
        InputError
        """
        found = NAME.fullmatch(text.strip())
        if found is None:
            raise InputError(f"BigQuery table is {text!r}; write it as PROJECT:DATASET.TABLE")
        owner = found["project"] or project
        if not owner:
            raise InputError(f"BigQuery table {text!r} has no project; write it as PROJECT:DATASET.TABLE")
        return cls(owner, found["dataset"], found["table"])

    @property
    def in_dataset(self) -> str:
        return f"{self.project}.{self.dataset}"

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"
