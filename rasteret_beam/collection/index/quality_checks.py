"""Checks of quality rules against a collection, before any pixel is read."""

import logging

import numpy as np

from rasteret_beam.collection.index.band_facts import stored_types
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed
from rasteret_beam.options import SampleOptions

log = logging.getLogger(__name__)


def check_rules(collection: RecordSelection, options: SampleOptions) -> None:
    """Refuse rules on bits that a quality band does not have, and log if rules decide nothing.

    Raises
    ------
    InputError
        A rule cannot be applied to the data type of its band; names the band, the type and the first record.
    CollectionError
        A dtype is unknown, or the collection cannot be read.
    """
    warn_of_unused_rules(options)
    on_bits = [rule for rule in options.quality if rule.needs_bits]
    bands = [band for band in dict.fromkeys(rule.band for rule in on_bits) if band in collection.bands]
    types = stored_types(collection, bands) if bands else {}
    for rule in on_bits:
        for dtype, record_id in types.get(rule.band, {}).items():
            try:
                rule.check_dtype(np.dtype(dtype))
            except InputError as error:
                raise InputError(f"{error} (record {record_id!r})") from None


def warn_of_unused_rules(options: SampleOptions) -> None:
    """Log if there are quality rules, but no option for which they matter."""
    if options.quality and not options.uses_validity:
        log.warning(
            "the quality rules (%s) change no row: samples that fail them keep their values, as invalid is 'keep'; use "
            "invalid='null' or 'drop', skip_invalid, max_distance_pixels, resampling, or status as one of the "
            "extra_columns",
            listed((f"{rule}" for rule in options.quality), 3),
        )
