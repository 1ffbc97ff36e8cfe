"""The command lines: parse, validate, build, run."""

import gc
import logging
import os
import signal
import sys

if sys.argv[:1] == ["-m"]:
    # A command is being loaded. Nothing that is imported is garbage, and looking for some among it takes a sixth of the
    # time; the command has it looked for again.
    gc.disable()
    # Ctrl-C before there is anything to clean up ends it without Python's traceback of some import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Arrow's own allocator keeps what the shuffle lets go of: 0.9 GB and 6.5 s at a million points; so, 0.8 and 6.1.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

import rasteret_beam.transforms.runtime.beam_import  # noqa: E402, F401  (before anything else imports Beam)
