"""Running the commands in tests: in this process or one of its own."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

import pytest

from pipelines.cli.process import command
from tests.support.paths import ROOT


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed; log lines stand among the errors."""

    code: int
    out: str
    err: str

    @property
    def figures(self) -> dict[str, int]:
        found = re.findall(r"^\s*(\S.*?)\s{2,}([\d,]+)$", self.out, re.M)
        return {label: int(number.replace(",", "")) for label, number in found}


def execute(main: Callable[[list[str]], int], *argv: object) -> Outcome:
    """Run a command in this process, as ``python -m`` does in its own."""
    out, err = StringIO(), StringIO()
    log = logging.StreamHandler(err)
    logging.getLogger().addHandler(log)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            command(lambda: main([str(word) for word in argv]))
    finally:
        logging.getLogger().removeHandler(log)
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def in_process_of_its_own(module: str, *argv: object) -> Outcome:
    words = [sys.executable, "-m", f"pipelines.{module}", *map(str, argv)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ended.stderr
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def as_flags(**flags: object) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]
