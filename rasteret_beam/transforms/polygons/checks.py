"""Checks of jobs over polygons, before anything is read."""

from collections.abc import Sequence

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.polygon_options import PolygonOptions
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.scales import check_scaled_bands


def checked_bands(collection: Collection, bands: Sequence[str], options: PolygonOptions) -> list[str]:
    """The bands as a list, if they can be read with the options.

    Raises
    ------
    InputError
        A band is not in the collection, or scales or quality rules name one that cannot be used; or the collection has
        no records.
    """
    wanted = collection.check_usable(bands, options.match_rules)
    check_scaled_bands(options.scales, wanted)
    if any(rule.missing == "error" for rule in options.quality):
        share = CacheBudget(options.cache_bytes).share
        QualityBands(collection, options.quality, collection.index(wanted).routing, share)
    return wanted
