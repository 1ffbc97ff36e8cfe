"""Write ``rasteret_beam/keywords.py`` from the definitions of options: ``python -m templates.keywords``.

Static checkers see the options of a function through a ``TypedDict``, which they cannot make of a dataclass.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from inspect import formatannotation
from pathlib import Path
from typing import Any, get_args, get_origin

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.option_fields import Option, options_of
from rasteret_beam.options import SampleOptions
from rasteret_beam.zonal_options import ZonalOptions

FILE = Path(__file__).parent.parent / "rasteret_beam" / "keywords.py"
KEYWORDS: dict[str, tuple[type, str, Callable[[Option], bool]]] = {
    "SampleKeywords": (SampleOptions, "transforms that sample points", lambda option: True),
    "EagerSampleKeywords": (SampleOptions, "eager calls that sample points", lambda option: option.facts.eager),
    "PlanKeywords": (SampleOptions, "plans", lambda option: option.facts.routing),
    "SampleRetryKeywords": (SampleOptions, "dead letters of points", lambda option: option.facts.retry),
    "ChipKeywords": (ChipOptions, "transforms that read chips", lambda option: True),
    "EagerChipKeywords": (ChipOptions, "eager calls that read chips", lambda option: option.facts.eager),
    "ChipRetryKeywords": (ChipOptions, "dead letters of chips", lambda option: option.facts.retry),
    "ZonalKeywords": (ZonalOptions, "transforms that make zonal statistics", lambda option: True),
    "EagerZonalKeywords": (ZonalOptions, "eager calls that make zonal statistics", lambda option: option.facts.eager),
    "ZonalRetryKeywords": (ZonalOptions, "dead letters of zonal statistics", lambda option: option.facts.retry),
}
MODULE = re.compile(r"\b(?:typing|datetime|collections\.abc|rasteret_beam\.quality)\.")
"""Modules from which the written one imports names."""

HEADER = '''"""The options as keyword arguments, for static type checkers.

Made of the definitions by ``make templates``; do not edit. A function that hands options on can use them too:
``def mine(**keywords: Unpack[SampleKeywords])``.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypedDict

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.options import SampleOptions
from rasteret_beam.quality import Quality
from rasteret_beam.zonal_options import ZonalOptions
'''


def type_text(kind: Any) -> str:
    """A type as source; any sequence is taken where the option holds a tuple of any length."""
    if get_origin(kind) is tuple:
        return f"Sequence[{type_text(get_args(kind)[0])}]"
    return MODULE.sub("", formatannotation(kind))


def text() -> str:
    """The module as it stands in the repository."""
    made = HEADER
    for name, (definition, owners, keep) in KEYWORDS.items():
        made += f'\n\nclass {name}(TypedDict, total=False):\n    """Options of {owners}."""\n\n'
        made += "".join(
            f"    {each.name}: {type_text(each.facts.accepts or each.type)}\n"
            for each in options_of(definition)
            if keep(each)
        )
        made += f"    options: {definition.__name__} | None\n"
    formatter = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(formatter, input=made, capture_output=True, text=True, check=True).stdout


def main() -> None:
    FILE.write_text(text())


if __name__ == "__main__":
    main()
