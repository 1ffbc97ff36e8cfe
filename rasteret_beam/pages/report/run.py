"""What a job was planned to read, and what it has read; its options and versions."""

from collections.abc import Mapping

from rasteret_beam import metrics
from rasteret_beam.pages.markup import Html, tag
from rasteret_beam.pages.numbers import NONE, count, size
from rasteret_beam.pages.page import card, cards, table
from rasteret_beam.pages.report.facts import Facts

COMPARED = {
    metrics.TILES_DECODED: "tiles decoded",
    metrics.TILE_BYTES_READ: "bytes of tiles",
    metrics.RANGE_REQUESTS: "requests",
    metrics.SAMPLES_OUT: "rows",
}
FURTHER = {
    metrics.TILE_CACHE_HITS: "tiles found in the cache",
    metrics.RANGE_BYTES: "bytes of requests",
    metrics.READ_RETRIES: "requests repeated",
    metrics.DATASETS_OPENED: "files opened",
    metrics.MASK_TILES_READ: "tiles of masks",
    metrics.CANDIDATES_WALKED: "values looked for in further records",
    metrics.VALUES_LEFT_OUT: "values left out",
}
IN_BYTES = (metrics.TILE_BYTES_READ, metrics.RANGE_BYTES)

START, END = "<!--run-->", "<!--/run-->"
"""Around what is replaced when the counters of a run are known."""


def run_part(facts: Facts, counts: Mapping[str, int] | None, seconds: float | None = None) -> Html:
    """A card with the plan and the run, between marks."""
    return Html(f"{START}{_card(facts.plan, facts.plan_note, counts, seconds)}{END}")


def _card(plan: Mapping[str, int] | None, note: str, counts: Mapping[str, int] | None, seconds: float | None) -> Html:
    def of(found: Mapping[str, int] | None, name: str) -> str:
        if found is None or name not in found:
            return NONE if found is None else "0"
        return f"{count(found[name])} ({size(found[name])})" if name in IN_BYTES else count(found[name])

    rows = [(label, of(plan, name), of(counts, name)) for name, label in COMPARED.items()]
    rows += [(label, "", of(counts, name)) for name, label in FURTHER.items() if counts and counts.get(name)]
    if seconds is not None:
        rows.append(("seconds", "", f"{seconds:,.1f}"))
    notes = [note] if plan is None and note else []
    if counts is None:
        notes.append("The counters of the run are not known here; those of a job are in its metrics.")
    return card(
        table(("", "plan", "run"), rows, (1, 2)), *(tag("p", each, class_="note") for each in notes), heading="Reading"
    )


def facts_cards(facts: Facts, counts: Mapping[str, int] | None, seconds: float | None = None) -> Html:
    """Cards of the run, the collection, the options, outputs and versions."""
    parts = [run_part(facts, counts, seconds)] if facts.plan or facts.plan_note or counts else []
    for heading, given in (
        ("Collection", facts.collection),
        ("Options", facts.options),
        ("Outputs", facts.outputs),
        ("Versions", facts.versions),
    ):
        if given:
            rows = [(name, tag("code", text)) for name, text in given.items()]
            parts.append(card(table(("", ""), rows), heading=heading))
    return cards(*parts)


def with_run(page: str, plan: Mapping[str, int] | None, note: str, counts: Mapping[str, int], seconds: float) -> str:
    """A page with the counters of the run, which were not known when it was made."""
    before, found, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{_card(plan, note, counts, seconds)}{END}{after}" if found else page
