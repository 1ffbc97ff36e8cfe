"""The command lines: parse, validate, build, run."""

import gc
import logging
import sys

if sys.argv[:1] == ["-m"]:
    # A command is being loaded. Nothing that is imported is garbage, and looking for some among it takes a sixth of the
    # time; the command has it looked for again.
    gc.disable()

logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
# Beam says so on import wherever its [gcp] extra is not installed.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
