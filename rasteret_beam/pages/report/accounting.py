"""How many points came in, and what became of them."""

from dataclasses import dataclass

from rasteret_beam.kernels.summary.summary import FILLED, VALID, VALUE, Summary
from rasteret_beam.pages.markup import Html, tag
from rasteret_beam.pages.numbers import NONE, count, share
from rasteret_beam.pages.page import card, cards, figures, table
from rasteret_beam.schema import UNSAMPLED_REASONS


@dataclass(frozen=True)
class Accounts:
    """Points of a job. Numbers that are not known are None.

    Attributes
    ----------
    points_in, sampled, unsampled : int or None
    reasons : {reason: count}
    """

    points_in: int | None
    sampled: int | None
    unsampled: int | None
    reasons: dict[str, int]

    @property
    def is_balanced(self) -> bool:
        """Whether the points that were read are those sampled and those not."""
        return None in (self.points_in, self.sampled, self.unsampled) or self.points_in == (self.sampled or 0) + (
            self.unsampled or 0
        )


def accounts_of(summary: Summary) -> Accounts:
    """What a summary tells about the points."""
    reasons = {reason: summary.reasons[reason] for reason in UNSAMPLED_REASONS if summary.reasons[reason]}
    reasons |= {reason: many for reason, many in summary.reasons.items() if reason not in reasons and many}
    unsampled: int | None = summary.unsampled
    if summary.sampled is None or summary.others is None:
        known = summary.points_in or None
        return Accounts(known, known - summary.unsampled if known is not None else None, unsampled, reasons)
    sampled = len(summary.sampled)
    if not reasons:
        known_none = 0 if summary.given_unsampled else None
        unsampled = summary.others.only_here(summary.sampled) if len(summary.others) else known_none
    return Accounts(sampled + unsampled if unsampled is not None else None, sampled, unsampled, reasons)


def shown(number: int | None) -> str:
    """A count, or a dash if it is not known."""
    return NONE if number is None else count(number)


def figures_of(summary: Summary, accounts: Accounts) -> Html:
    """The most important numbers in a row."""
    whole = accounts.points_in or 0
    values = sum(sum(kinds.values()) for kinds in summary.kinds.values())
    valid = sum(kinds[name] for kinds in summary.kinds.values() for name in (VALID, FILLED, VALUE))
    of_points = lambda part: share(part, whole) + " of the points" if part is not None and whole else ""  # noqa: E731
    given: dict[str, str | tuple[str, str]] = {
        "Points": (shown(accounts.points_in), "rows in"),
        "Sampled": (shown(accounts.sampled), of_points(accounts.sampled)),
        "Unsampled": (shown(accounts.unsampled), of_points(accounts.unsampled)),
        "Rows": (count(summary.rows), "of the sample table"),
        "Valid values": (share(valid, values), f"{count(valid)} of {count(values)}"),
    }
    if summary.dead_letters:
        tiles = sum(summary.dead_letters.values())
        given["Dead letters"] = (count(tiles), f"tiles with {count(summary.dead_values)} values")
    return figures(given)


def sentence(accounts: Accounts) -> Html:
    """The balance of the points in words."""
    if None in (accounts.points_in, accounts.sampled, accounts.unsampled):
        return tag("p", "How many points were not sampled is not known: the report was given the samples alone.")
    parts = f"{shown(accounts.sampled)} sampled + {shown(accounts.unsampled)} unsampled"
    text = f"{shown(accounts.points_in)} points = {parts}"
    if accounts.is_balanced:
        return tag("p", f"Every point is accounted for: {text}.")
    return tag("p", tag("span", f"The numbers do not add up: {text}.", class_="warn"))


def details(summary: Summary, accounts: Accounts) -> Html:
    """Cards of reasons and of dead letters; empty if there are none."""
    found = []
    if accounts.reasons:
        rows = [
            (reason, UNSAMPLED_REASONS.get(reason, ""), count(many), share(many, accounts.unsampled or 0))
            for reason, many in accounts.reasons.items()
        ]
        found.append(
            card(table(("reason", "what it means", "points", "share"), rows, (2, 3)), heading="Unsampled points")
        )
    if summary.dead_letters:
        letters = [(error, count(many)) for error, many in summary.dead_letters.most_common()]
        found.append(card(table(("error", "tiles"), letters, (1,)), heading="Tiles that could not be read"))
    if summary.without_record:
        text = f"{count(summary.without_record)} rows are of points without a sample, as join is left."
        found.append(card(tag("p", text), heading="Rows without a record"))
    return cards(*found) if found else Html("")
