"""The flag for a report, and what the report of a command shows beside its rows."""

import argparse
from typing import Any

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.plan import plan_batches
from rasteret_beam.collection.eager.plan_figures import plan_totals
from rasteret_beam.collection.eager.report_facts import facts_of, option_text
from rasteret_beam.option_fields import options_of
from rasteret_beam.options import SampleOptions
from rasteret_beam.pages.report.facts import Facts
from rasteret_beam.transforms.sinks.report import ENDINGS

MOST_PLANNED = 250_000
"""Points that are planned for the report: it takes some hundredths of the time of sampling them."""

NOT_SHOWN = ("verbose", "resume", "plan", "report", "title")
OUTPUTS = ("output", "bigquery", "iceberg", "unsampled", "dead_letter")


def page(text: str) -> str:
    """The path of a page."""
    if not text.lower().endswith(ENDINGS) or text.lower().rsplit("/", 1)[-1] in ENDINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is not the path of a page; give one such as out/report.html")
    return text


def add_report_flag(flags: argparse._ActionsContainer) -> None:
    """Add the flag for a report beside the other outputs of a job."""
    flags.add_argument(
        "--report",
        type=page,
        metavar="PATH.html",
        help="also write a page with the counts of points, maps, histograms, quantiles, dates and options; rows are "
        "summarised while they are written",
    )


def facts_of_job(flags: argparse.Namespace, collection: Collection, crs: str, plan: Any, note: str) -> Facts:
    """The facts of a command's report."""
    defaults = {each.name: each.default for each in options_of(SampleOptions)}
    given = {name: value for name, value in vars(flags).items() if value not in (None, False)}
    shown = {name: value for name, value in given.items() if name not in (*NOT_SHOWN, *OUTPUTS)}
    return facts_of(
        collection,
        options={f"--{name}": option_text(value) for name, value in shown.items() if value != defaults.get(name)},
        outputs={f"--{name}": option_text(given[name]) for name in OUTPUTS if name in given},
        point_crs=crs,
        plan=plan,
        plan_note=note,
    )


def plan_of_job(inputs: Any) -> tuple[Any, str]:
    """The plan of a local job, unless that takes long; or None and the reason."""
    if inputs.reading is None:
        return None, "Dead letters have no plan."
    rows = inputs.reading.size().rows
    if rows is None or rows > MOST_PLANNED:
        many = "a number of points that is not known before" if rows is None else f"{rows:,} points"
        return None, f"Not planned, to save time, as there are {many}; --plan prints the plan."
    plan = plan_batches(inputs.index(), inputs.reading.batches(), inputs.columns.crs, inputs.options)
    return plan_totals(plan), ""
