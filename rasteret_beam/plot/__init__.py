"""Pictures of sample tables, with Matplotlib (the extra ``plot``), which is imported when something is drawn."""

from rasteret_beam.plot.point_map import points
from rasteret_beam.plot.series import time_series

__all__ = ["points", "time_series"]
