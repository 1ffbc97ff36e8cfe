"""Parse names of Iceberg tables and partition terms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from rasteret_beam.errors import InputError, did_you_mean, listed

TRANSFORMS = ("identity", "year", "month", "day", "hour")
"""Partition transforms by which rows can be split; Iceberg also has bucket, truncate and void."""

DEFAULT_TERMS = ("datetime:month", "band")

_EXACT = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_string,
    pa.types.is_date,
    pa.types.is_timestamp,
)
"""Types of columns that can be partitioned by their values."""


@dataclass(frozen=True)
class TableName:
    """Catalog, namespace and table; written ``catalog.namespace.table``, with more names in a nested namespace."""

    catalog: str
    namespace: tuple[str, ...]
    table: str

    @classmethod
    def parse(cls, text: str) -> "TableName":
        """The table of a text.

        Raises
        ------
        InputError
        """
        parts = text.strip().split(".")
        if len(parts) < 3 or not all(part and part == part.strip() for part in parts):
            raise InputError(f"Iceberg table is {text!r}; write it as CATALOG.NAMESPACE.TABLE")
        return cls(parts[0], tuple(parts[1:-1]), parts[-1])

    @property
    def in_catalog(self) -> tuple[str, ...]:
        """Namespace and table, as catalogs take them."""
        return (*self.namespace, self.table)

    def __str__(self) -> str:
        return ".".join((self.catalog, *self.in_catalog))


@dataclass(frozen=True)
class PartitionTerm:
    """A column and the transform of its values that makes a part of a partition; written ``column:transform``."""

    column: str
    transform: str = "identity"

    @property
    def name(self) -> str:
        """The name of the partition field, made as Iceberg's other writers make it."""
        plain = re.sub(r"\W", "_", self.column)
        return plain if self.transform == "identity" else f"{plain}_{self.transform}"

    def __str__(self) -> str:
        return self.column if self.transform == "identity" else f"{self.column}:{self.transform}"


def partition_terms(given: Sequence[str], schema: pa.Schema) -> tuple[PartitionTerm, ...]:
    """The terms of texts such as ``datetime:month`` and ``band``.

    Parameters
    ----------
    given : sequence of str
    schema : Schema
        Of the rows, with types that Iceberg has.

    Raises
    ------
    InputError
        A column is missing or has a type that does not suit, or a transform is unknown.
    """
    if isinstance(given, str):
        raise InputError(f"partition_by is {given!r}; give a list of columns, such as ['datetime:month', 'band']")
    terms = tuple(_term(text, schema) for text in given)
    if len(set(terms)) < len(terms):
        raise InputError(f"partition_by names {listed(given)}; name each term once")
    return terms


def _term(text: str, schema: pa.Schema) -> PartitionTerm:
    column, transform = text, "identity"
    if text not in schema.names:  # names may have colons
        column, _, transform = text.rpartition(":")
        column, transform = (column, transform.lower()) if column else (text, "identity")
    if column not in schema.names:
        raise InputError(
            f"partition_by names column {column!r}{did_you_mean(column, schema.names)}; the rows have "
            f"{listed(schema.names)}"
        )
    if transform not in TRANSFORMS:
        raise InputError(
            f"partition_by is {text!r}; the transform can be one of {listed(TRANSFORMS)}"
            f"{did_you_mean(transform, TRANSFORMS)}"
        )
    kind = schema.field(column).type
    is_time = pa.types.is_timestamp(kind) or (pa.types.is_date(kind) and transform != "hour")
    if not (any(is_it(kind) for is_it in _EXACT) if transform == "identity" else is_time):
        needed = "boolean, whole number, text, date or timestamp" if transform == "identity" else "date or timestamp"
        raise InputError(f"partition_by is {text!r}, but column {column!r} is {kind}; it has to be a {needed}")
    return PartitionTerm(column, transform)


def default_terms(schema: pa.Schema) -> list[str]:
    """The partition terms of a new table: month of datetime, and band where rows have one."""
    return [term for term in DEFAULT_TERMS if term.partition(":")[0] in schema.names]
