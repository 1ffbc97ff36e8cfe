"""Import Beam without its warning that the extra for Google Cloud is not installed.

Beam calls ``logging.warning`` when it is imported, which also adds a handler to the root logger if it has none, so that
a later ``logging.basicConfig`` by the user would have no effect.
"""

import logging
import sys


def _is_not_of_extra(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("apitools not found")


def _import_beam() -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    root.addFilter(_is_not_of_extra)
    try:
        import apache_beam  # noqa: F401
    finally:
        root.removeFilter(_is_not_of_extra)
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)


if "apache_beam" not in sys.modules:
    _import_beam()
