"""Which of whole records are taken for a polygon, by the rules of :mod:`.match` for bands."""

from collections.abc import Sequence
from dataclasses import dataclass

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import NO_DATETIME
from rasteret_beam.model import MatchRules


@dataclass(frozen=True, eq=False)
class WholeRecords:
    """The rules, and the datetimes [r] of the records of an index, in microseconds since 1970."""

    rules: MatchRules
    datetimes: Ints

    @property
    def chooses(self) -> bool:
        """Whether the best of the records are taken, not all that suit."""
        return self._most is not None

    @property
    def _most(self) -> int | None:
        return self.rules.limit or (None if self.rules.match == "all" else 1)

    def best(self, records: Sequence[int], time: int | None = None, most: int | None = None) -> list[int]:
        """Of records that suit, given in the order of the collection, those that are taken; the best come first.

        Parameters
        ----------
        records : sequence of int
            Positions in the index.
        time : int, optional
            Of the polygon, where records are matched in time; in microseconds since 1970.
        most : int, optional
            How many are taken, at most, in place of as many as the rules say.
        """
        moments = {record: int(self.datetimes[record]) for record in records}
        found = list(records)
        if self.rules.time_column is not None:
            assert time is not None
            found = [record for record in found if self._is_in_time(moments[record], time)]
            found.sort(key=lambda record: (abs(moments[record] - time), moments[record]))
        elif self.rules.match == "latest":
            found.sort(key=lambda record: -moments[record])  # NO_DATETIME, the least number, comes last
        return found[: most or self._most]

    def _is_in_time(self, moment: int, time: int) -> bool:
        if moment == NO_DATETIME:
            return False
        apart = moment - time
        if self.rules.tolerance is not None and abs(apart) > self.rules.tolerance:
            return False
        return apart <= 0 if self.rules.match == "before" else apart >= 0 if self.rules.match == "after" else True
