"""Estimate what a sampling job would read and write; no pixel is read, and nothing is written."""

from pipelines.startup import prepare

prepare(__name__)

from collections.abc import Sequence

from pipelines import sample_points
from pipelines.cli.flags import Parser, option_flags, pipeline_options
from pipelines.cli.process import command
from pipelines.cli.sample_job import Inputs
from rasteret_beam.options import SampleOptions

EPILOG = """
example:
  python -m pipelines.plan_sampling --points plots.parquet --x_column lon --y_column lat \\
      --geometry_crs 4326 --collection collection/ --bands B02,B03 --match latest

The flags are those of python -m pipelines.sample_points, without its outputs, whose --plan does the same. Windows of
--max_distance_pixels and --statistics are not counted.

Exit codes: 0, the plan is printed. 1, an input cannot be read or used. 2, a flag is wrong.
"""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "plan_sampling",
        __doc__ or "",
        EPILOG,
        sample_points.ARGUMENTS,
        needed="--points PATH --collection PATH --bands A,B",
    )
    sample_points.point_flags(flags.add_argument_group("points"))
    sample_points.collection_flags(flags.add_argument_group("collection"), "bands to sample", needed=True)
    option_flags(flags.add_argument_group("sampling"), SampleOptions)
    sample_points.round_flag(flags.add_argument_group("memory"))
    outputs = {flag for action in sample_points.parser()._actions for flag in action.option_strings}
    flags.elsewhere = dict.fromkeys(outputs, "a plan reads no pixels and writes nothing; leave it out")
    flags.set_defaults(plan=True, retry=None, dead_letter=None)
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    flags, rest = parser().parse(argv)
    options = pipeline_options(rest)
    return sample_points.show_plan(Inputs(flags, options), options)


if __name__ == "__main__":
    command(main)
