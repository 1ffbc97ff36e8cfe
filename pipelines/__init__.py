"""The command lines: parse, validate, build, run."""

import logging

logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
# Beam says so on import wherever its [gcp] extra is not installed.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
