"""Importing the library or the commands changes nothing in the process that imports them."""

import json
import subprocess
import sys

from tests.support.paths import ROOT

PROGRAM = """
import gc, importlib, json, logging, os, pkgutil, signal, sys
import pyarrow, rasterio

def loggers():
    named = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    return [logging.root, *named]

def state():
    return {
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "signals": {number.name: str(signal.getsignal(number)) for number in signal.valid_signals()
                    if isinstance(number, signal.Signals)},
        "environment": dict(os.environ),
        "root": [logging.root.level, list(map(str, logging.root.handlers))],
        "filters": {each.name: list(map(str, each.filters)) for each in loggers() if each.filters},
        "levels": {each.name: each.level for each in loggers() if each.name in known},
        "pool": pyarrow.default_memory_pool().backend_name,
        "excepthook": str(sys.excepthook),
    }

known = {each.name for each in loggers()}
before = state()
packages, sys.argv = sys.argv[1:], ["-m"]  # as Python has it while it loads a module that is to be run
for package in packages:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        importlib.import_module(module.name)
after = state()
print(json.dumps({name: [before[name], after[name]] for name in before}))
"""


def test_imports_change_no_state_of_the_process() -> None:
    """A program imports every module of both packages."""
    words = [sys.executable, "-c", PROGRAM, "rasteret_beam", "pipelines"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for name, (before, after) in json.loads(done.stdout).items():
        assert before == after, name
