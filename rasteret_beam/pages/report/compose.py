"""The whole page of a report."""

from collections.abc import Mapping

from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.pages.markup import Content, Html
from rasteret_beam.pages.numbers import count
from rasteret_beam.pages.page import Section, cards, fragment, page
from rasteret_beam.pages.report.accounting import accounts_of, details, figures_of, sentence
from rasteret_beam.pages.report.bands import share_card, value_cards
from rasteret_beam.pages.report.facts import Facts
from rasteret_beam.pages.report.places import maps
from rasteret_beam.pages.report.run import facts_cards
from rasteret_beam.pages.report.times import bars, time_card


def sections(
    summary: Summary, facts: Facts, counts: Mapping[str, int] | None = None, seconds: float | None = None
) -> list[Section]:
    """The sections of a report."""
    accounts = accounts_of(summary)
    found = [Section("Accounts", [figures_of(summary, accounts), details(summary, accounts)], sentence(accounts))]
    drawn = maps(summary, facts)
    if drawn:
        about = "Each cell has the mean of the samples in it. Cells are as small as the number of points allows."
        found.append(Section("Maps", drawn, about))
    if summary.rows:
        found.append(Section("Values", value_cards(summary), "Of valid values only."))
        found.append(Section("Validity and time", cards(share_card(summary), time_card(summary))))
    else:
        found.append(Section("Values", "There are no sample rows."))
    described = facts_cards(facts, counts, seconds)
    if described:
        found.append(Section("Run", described))
    return found


def report_page(
    summary: Summary, facts: Facts, counts: Mapping[str, int] | None = None, seconds: float | None = None
) -> str:
    """The report as a whole HTML document.

    Parameters
    ----------
    summary : Summary
    facts : Facts
    counts : {counter: number}, optional
        Of the run, by names of :mod:`rasteret_beam.metrics`.
    seconds : float, optional
        That the run took.
    """
    version = facts.versions.get("rasteret_beam", "")
    foot = f"Made by rasteret_beam {version}".strip() + (f" on {facts.made}" if facts.made else "") + "."
    return page(facts.title, sections(summary, facts, counts, seconds), lead(summary, facts), foot)


def report_fragment(summary: Summary, facts: Facts) -> Html:
    """The report for a notebook."""
    parts: list[Content] = []
    for section in sections(summary, facts):
        parts += [Html(f"<h2>{section.heading}</h2>"), section.content]
    return fragment(*parts)


def lead(summary: Summary, facts: Facts) -> str:
    """What the report is about, on one line."""
    bands = len(dict.fromkeys(series.band for series in summary.values))
    found = bars(summary)
    parts = [facts.made] if facts.made else []
    parts.append(f"{count(summary.rows)} rows of {count(bands)} band{'' if bands == 1 else 's'}")
    if found is not None:
        dates = summary.dates.sorted()[0]
        parts.append(f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else str(dates[0]))
    return " · ".join(parts)
