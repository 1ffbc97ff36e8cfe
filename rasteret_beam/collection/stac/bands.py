"""Which asset of an item a band is: by the asset's name, the band's name, or its common name.

Sources: STAC 1.1 ``bands``, and ``eo:bands`` and ``raster:bands`` of the extensions of STAC 1.0.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rasteret_beam.collection.records.assets import Assets, is_raster
from rasteret_beam.errors import InputError, did_you_mean, listed

Wanted = Mapping[str, str | tuple[str, int]]
"""Names of bands, and what each is: the name of an asset, of a band or of a colour; or an asset and a 0-based index."""


class Source(NamedTuple):
    """An asset of an item, and the 0-based index of a band in it."""

    asset: str
    number: int


@dataclass(frozen=True)
class _Entry:
    """What an item says of a band of an asset."""

    source: Source
    name: str | None
    common_name: str | None
    alone: bool


def wanted_bands(bands: Any) -> Wanted | None:
    """The bands of a caller as a mapping; None for all.

    Raises
    ------
    InputError
        They have another form.
    """
    if bands is None:
        return None
    if isinstance(bands, str):
        bands = [bands]
    if not isinstance(bands, Iterable):
        raise InputError(f"bands are {bands!r}; give names, or a mapping of names to assets")
    pairs = bands.items() if isinstance(bands, Mapping) else ((band, band) for band in bands)
    found: dict[str, str | tuple[str, int]] = {}
    for band, source in pairs:
        if isinstance(source, Sequence) and not isinstance(source, str) and len(source) == 2:
            asset, index = source
            if isinstance(asset, str) and isinstance(index, int) and not isinstance(index, bool) and index >= 0:
                found[band] = asset, index
                continue
        if not isinstance(band, str) or not isinstance(source, str):
            raise InputError(
                f"band {band!r} is {source!r}; give the name of an asset or a band, a common name such as 'red', or "
                "(asset, 0-based index)"
            )
        found[band] = source
    if not found:
        raise InputError("bands are empty; name at least one, or omit them to take all")
    return found


def bands_of(assets: Assets, wanted: Wanted | None, what: str) -> dict[str, Source]:
    """The assets of an item's bands; those that the item lacks are left out.

    Raises
    ------
    InputError
        A common name is that of several bands of the item.
    """
    entries = list(_entries(assets))
    if wanted is None:
        return _all(entries)
    found = {}
    for band, source in wanted.items():
        chosen = _chosen(assets, entries, source, band, what)
        if chosen is not None:
            found[band] = chosen
    return found


def check_known(wanted: Wanted, found: Mapping[str, Any], items: Sequence[Assets]) -> None:
    """Refuse bands that no item has.

    Raises
    ------
    InputError
    """
    missing = [band for band in wanted if band not in found]
    if not missing:
        return
    known = list(dict.fromkeys(name for assets in items for name in names_in(assets)))
    raise no_item_has(missing[0], wanted[missing[0]], known)


def names_in(assets: Assets) -> Iterator[str]:
    """The names by which the bands of an item can be asked for: of assets, of bands and of colours."""
    for entry in _entries(assets):
        yield from (name for name in (entry.source.asset, entry.name, entry.common_name) if name)


def no_item_has(band: str, source: str | tuple[str, int], known: Sequence[str]) -> InputError:
    """The error about a band that no item has."""
    shown = source if isinstance(source, str) else source[0]
    return InputError(
        f"no item has band {band!r} ({source!r}){did_you_mean(shown, known)}; assets, bands and common names of "
        f"the items are {listed(known, 40)}"
    )


def _chosen(
    assets: Assets, entries: Sequence[_Entry], source: str | tuple[str, int], band: str, what: str
) -> Source | None:
    if not isinstance(source, str):
        return Source(*source) if source[0] in assets else None
    if source in assets:
        return Source(source, 0)
    for name in ("name", "common_name"):
        found = [entry for entry in entries if getattr(entry, name) == source]
        # A picture of several bands repeats those that have an asset each.
        found = [entry for entry in found if entry.alone] or found
        if len(found) > 1:
            raise InputError(
                f"{source!r} is the {name.replace('_', ' ')} of several bands of {what}: "
                f"{listed(_shown(entry.source) for entry in found)}; give one of them as band {band!r}"
            )
        if found:
            return found[0].source
    return _all(entries).get(source)


def _shown(source: Source) -> str:
    return source.asset if not source.number else f"({source.asset!r}, {source.number})"


def _all(entries: Sequence[_Entry]) -> dict[str, Source]:
    """Every band: an asset of one band has the asset's name, others that and the band's name, or its number where the
    name is missing or taken."""
    found: dict[str, Source] = {}
    taken = {entry.source.asset for entry in entries if entry.alone}
    for entry in entries:
        asset, number = entry.source
        name = asset if entry.alone else f"{asset}_{entry.name or number + 1}"
        if not entry.alone and (name in found or name in taken):
            name = f"{asset}_{number + 1}"
        found[name] = entry.source
    return found


def _entries(assets: Assets) -> Iterator[_Entry]:
    for asset, document in assets.items():
        if not document.get("href") or not is_raster(document):
            continue
        bands = [_merged(document, number) for number in range(max(1, *map(len, _lists(document).values())))]
        for number, band in enumerate(bands):
            common = band.get("eo:common_name") or band.get("common_name")
            yield _Entry(Source(asset, number), band.get("name"), common, len(bands) == 1)


def _merged(document: Mapping[str, Any], number: int) -> dict[str, Any]:
    entries = (bands[number] for bands in _lists(document).values() if number < len(bands))
    return {name: value for entry in entries if isinstance(entry, Mapping) for name, value in entry.items()}


def _lists(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of bands of an asset."""
    found = {}
    for name in ("raster:bands", "eo:bands", "bands"):
        bands = document.get(name)
        bands = json.loads(bands) if isinstance(bands, str) else bands
        found[name] = list(bands) if isinstance(bands, Sequence) else []
    return found
