"""Print the list of providers with which Beam YAML finds the transforms of this package.

Without flags, the transforms run in the process of the pipeline, which has rasteret_beam installed. With --packages,
Beam installs these packages into a separate environment and expands the transforms there, as on Dataflow.
"""

import argparse
import sys
from collections.abc import Sequence

from rasteret_beam.transforms.yaml.listing import listing

EPILOG = """
example:
  python -m pipelines.yaml_providers > providers.yaml
  python -m pipelines.yaml_providers --packages gs://my-bucket/rasteret_beam-0.1.0-py3-none-any.whl > providers.yaml

A job names the file: providers: [{include: providers.yaml}]
"""


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    flags = argparse.ArgumentParser(
        prog="python -m pipelines.yaml_providers",
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument(
        "--packages",
        metavar="A,B",
        default="",
        help="wheels, or requirements as pip has them, that Beam installs for the transforms",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list; gives the exit code."""
    given = parser().parse_args(argv)
    packages = [package.strip() for package in given.packages.split(",") if package.strip()]
    sys.stdout.write(listing(packages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
