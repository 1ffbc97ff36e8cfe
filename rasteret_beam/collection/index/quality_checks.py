"""Checks of quality rules against a collection, before any pixel is read."""

import logging
from collections.abc import Sequence

import numpy as np

from rasteret_beam.collection.index.band_facts import stored_types
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, did_you_mean, listed
from rasteret_beam.options import SampleOptions
from rasteret_beam.quality import Quality

log = logging.getLogger(__name__)


def check_rules(collection: RecordSelection, options: SampleOptions) -> None:
    """Check the rules of a sampling job against its collection, and log if they decide nothing.

    Raises
    ------
    InputError, CollectionError
        As of :func:`check_bands_of_rules`.
    """
    warn_of_unused_rules(options)
    check_bands_of_rules(collection, options.quality)


def check_bands_of_rules(collection: RecordSelection, rules: Sequence[Quality]) -> None:
    """Refuse rules on bits that a quality band does not have, and log rules whose bands no record has.

    Raises
    ------
    InputError
        A rule cannot be applied to the data type of its band; names the band, the type and the first record.
    CollectionError
        A dtype is unknown, or the collection cannot be read.
    """
    _warn_of_missing_bands(collection.bands, rules)
    on_bits = [rule for rule in rules if rule.needs_bits]
    bands = [band for band in dict.fromkeys(rule.band for rule in on_bits) if band in collection.bands]
    types = stored_types(collection, bands) if bands else {}
    for rule in on_bits:
        for dtype, record_id in types.get(rule.band, {}).items():
            try:
                rule.check_dtype(np.dtype(dtype))
            except InputError as error:
                raise InputError(f"{error} (record {record_id!r})") from None


def _warn_of_missing_bands(bands: Sequence[str], rules: Sequence[Quality]) -> None:
    for rule in rules:
        if rule.missing != "error" and rule.band not in bands:
            log.warning(
                "no record has the quality band %r%s: %s pixel passes, as missing is %r",
                rule.band,
                did_you_mean(rule.band, bands),
                "each" if rule.missing == "pass" else "not one",
                rule.missing,
            )


def warn_of_unused_rules(options: SampleOptions) -> None:
    """Log if there are quality rules, but no option for which they matter."""
    if options.quality and not options.uses_validity:
        log.warning(
            "the quality rules (%s) change no row: samples that fail them keep their values, as invalid is 'keep'; use "
            "invalid='null' or 'drop', skip_invalid, max_distance_pixels, resampling, statistics, or status as one of "
            "the extra_columns",
            listed((f"{rule}" for rule in options.quality), 3),
        )
