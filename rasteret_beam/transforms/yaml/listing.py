"""The list of providers that a YAML pipeline includes: a line for each transform."""

import json
from collections.abc import Sequence

from rasteret_beam.transforms.yaml.registry import TRANSFORMS

MODULE = "rasteret_beam.transforms.yaml.provider"
HEADER = "# The transforms of rasteret_beam for Beam YAML, made by `python -m pipelines.yaml_providers`."


def listing(packages: Sequence[str] = ()) -> str:
    """The list as YAML; with ``packages``, Beam installs them and expands the transforms in another process."""
    lines = [HEADER, "- type: python"]
    if packages:
        lines.append(f"  config: {{packages: {json.dumps(list(packages))}}}")
    lines.append("  transforms:")
    return "\n".join([*lines, *(f"    {name}: {MODULE}.{name}" for name in TRANSFORMS), ""])
