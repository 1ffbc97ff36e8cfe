"""The values of bands: histograms, quantiles, and what share of the values is valid."""

from collections.abc import Sequence

import numpy as np

from rasteret_beam.kernels.summary.rows import Series
from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.kernels.summary.tally import Floats
from rasteret_beam.kernels.summary.values import Values
from rasteret_beam.pages.charts import histogram, stacked_shares
from rasteret_beam.pages.markup import Html, html, tag
from rasteret_beam.pages.numbers import count, number, share
from rasteret_beam.pages.page import card, cards, more, table

MOST_CARDS = 8
"""Series with a histogram; all are in a table."""

MOST_SHARES = 12
BARS = 48
OUTER = 0.001
"""Part of the values at each end that a histogram leaves out, if they are far from the others."""

QUANTILES = {"min": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}
KINDS = ("valid", "filled", "value", "masked", "nodata", "null", "not finite")
"""What values can be, in the order of the bars; reasons of points without a sample follow."""


def value_cards(summary: Summary) -> Html:
    """A card for each of the first series, and a table of all."""
    series = [each for each in _ordered(summary) if summary.values[each].count]
    shown = [_card(each, summary.values[each]) for each in series[:MOST_CARDS]]
    if not series:
        return cards(card(tag("p", "There is no valid value.")))
    few = series[:MOST_CARDS]
    rest = f"All {count(len(series))} columns of values"
    further = more(rest, _table(series, summary)) if len(series) > len(few) else Html("")
    table_card = card(_table(few, summary), further, _error_note(summary), heading="Quantiles", wide=True)
    return html([cards(*shown, small=True), cards(table_card)])


def _ordered(summary: Summary) -> list[Series]:
    """Series in the order of the bands, values first."""
    places = {band: at for at, band in enumerate(summary.bands or dict.fromkeys(each.band for each in summary.values))}
    last = len(places)
    return sorted(summary.values, key=lambda each: (bool(each.statistic), places.get(each.band, last)))


def _card(series: Series, values: Values) -> Html:
    edges, outside = edges_of(values)
    marks = dict(zip(("5 %", "median", "95 %"), values.quantiles([0.05, 0.5, 0.95]), strict=True))
    facts = f"mean {number(values.mean)}, standard deviation {number(values.std)}, {count(values.count)} values"
    text = f"{facts}; {count(outside)} beyond the ends are not drawn" if outside else facts
    title = f"Histogram of {series.label}"
    return card(histogram(edges, values.histogram(edges), marks, title=title, caption=text), heading=series.label)


def edges_of(values: Values) -> tuple[Floats, int]:
    """Edges of the bars of a histogram, and how many values are beyond them."""
    low, high = values.low, values.high
    inner_low, inner_high = values.quantiles([OUTER, 1 - OUTER])
    if high / 4 - low / 4 > inner_high - inner_low > 0:
        low, high = inner_low, inner_high
    if _are_whole(values) and high - low < 2**52:
        step = max(1, int(np.ceil((high - low + 1) / BARS)))
        edges = np.arange(low, high + step, step) - 0.5
        edges = np.append(edges, edges[-1] + step) if edges[-1] < high else edges
    elif high > low:
        edges = low + (high - low) * np.linspace(0.0, 1.0, BARS + 1)
        edges[-1] = high
    else:
        half = max(abs(low) * 0.5, 0.5)
        edges = np.array([low - half, low + half])
    inside = round(float(values.histogram(edges).sum()))
    return edges, values.count - inside


def _are_whole(values: Values) -> bool:
    first = values.bins()[0]
    return values.is_exact and bool((first == np.round(first)).all())


def _table(series: Sequence[Series], summary: Summary) -> Html:
    head = ["column", "values", *QUANTILES, "mean", "std"]
    rows = []
    for each in series:
        values = summary.values[each]
        found = [number(value) for value in values.quantiles([*QUANTILES.values()])]
        rows.append([each.label, count(values.count), *found, number(values.mean), number(values.std)])
    return table(head, rows, range(1, len(head)))


def _error_note(summary: Summary) -> Html:
    worst = max((values.relative_error for values in summary.values.values()), default=0.0)
    if not worst:
        return tag("p", "Quantiles are exact.", class_="note")
    text = (
        f"Quantiles other than min and max are within {share(worst / 2, 1)} of the value, by a sketch of bounded size."
    )
    return tag("p", text, class_="note")


def share_card(summary: Summary) -> Html:
    """A card: what share of the values of each band is valid, masked, filled, nodata, or why there is none."""
    kinds = {band: of_band for band, of_band in summary.kinds.items() if sum(of_band.values())}
    if not kinds:
        return card(tag("p", "There are no rows."), heading="Validity")
    known = dict.fromkeys(kind for of_band in kinds.values() for kind in of_band)
    order = [*(kind for kind in KINDS if kind in known), *(kind for kind in known if kind not in KINDS)]
    places = {band: at for at, band in enumerate(summary.bands)}
    bands = sorted(kinds, key=lambda band: places.get(band, len(places)))
    rows = [(band, {kind: kinds[band].get(kind, 0) for kind in order}) for band in bands[:MOST_SHARES]]
    chart = stacked_shares(rows, title="What the values of each band are", caption=_about_kinds(order))
    if len(bands) <= MOST_SHARES:
        return card(chart, heading="Validity")
    head = ["band", *order]
    whole = table(head, [(band, *(count(kinds[band].get(kind, 0)) for kind in order)) for band in bands], range(1, 20))
    return card(chart, more(f"All {count(len(bands))} bands", whole), heading="Validity")


def _about_kinds(kinds: Sequence[str]) -> str:
    if "value" not in kinds:
        return "By column status."
    known = "nodata are stored values that the collection declares so; " if "nodata" in kinds else ""
    return (
        f"The samples have no column status, which tells masked and filled values too; {known}null values are invalid."
    )
