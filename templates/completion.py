"""Write ``pipelines/cli/completion.json``, the flags that shells complete, from the parsers of the commands.

Run by ``make templates``, or alone: ``python -m templates.completion``.
"""

import argparse
import json
import re
import textwrap
from importlib import import_module
from typing import Any

from pipelines.cli.completion import FLAGS
from pipelines.cli.flags import Parser
from pipelines.cli.subcommands import SUBCOMMANDS

PATHS = re.compile(r"PATH|PREFIX|FOLDER|SOURCE|FILE")
"""In the placeholder of a flag that a path follows."""

LENGTH = 72
"""Of a help text, which shells show in one line."""

OF_BEAM: list[dict[str, Any]] = [
    {
        "name": "--runner",
        "help": "where the job runs",
        "takes": "choice",
        "choices": ["DataflowRunner", "FlinkRunner", "PortableRunner", "PrismRunner"],
    },
    {"name": "--job_endpoint", "help": "address of a job server", "takes": "value"},
    {
        "name": "--environment_type",
        "help": "how workers are started",
        "takes": "choice",
        "choices": ["DOCKER", "EXTERNAL", "LOOPBACK", "PROCESS"],
    },
    {
        "name": "--direct_running_mode",
        "help": "workers of a job in this process",
        "takes": "choice",
        "choices": ["in_memory", "multi_processing"],
    },
    {"name": "--direct_num_workers", "help": "number of workers of a job in this process", "takes": "value"},
    {"name": "--project", "help": "Google Cloud project", "takes": "value"},
    {"name": "--region", "help": "region of Dataflow", "takes": "value"},
    {"name": "--job_name", "help": "name of the job", "takes": "value"},
    {"name": "--temp_location", "help": "folder for temporary files", "takes": "path"},
    {"name": "--staging_location", "help": "folder for the packages of the job", "takes": "path"},
    {"name": "--setup_file", "help": "setup.py that workers install", "takes": "path"},
    {"name": "--sdk_container_image", "help": "image of the workers", "takes": "value"},
    {"name": "--dry_run", "help": "check the job and submit nothing", "takes": "choice", "choices": ["True"]},
]
"""Some of Beam's options, which commands that run a job accept."""


def flag(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, Any]:
    """A flag as :class:`pipelines.cli.completion.Flag` has it."""
    name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
    text = re.split(r"; |: | \(", parser._get_formatter()._expand_help(action))[0]
    stored = {"name": name, "help": textwrap.shorten(text, LENGTH, placeholder=" ...")}
    if action.choices is not None:
        return {**stored, "takes": "choice", "choices": [str(choice) for choice in action.choices]}
    return {**stored, "takes": _takes(action)}


def _takes(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "nothing"
    if action.nargs == "?" and action.option_strings:
        return "switch"
    return "path" if PATHS.search(str(action.metavar)) else "value"


def flags_of(command: str) -> list[dict[str, Any]]:
    """All flags of a command, and Beam's if it runs a job."""
    parser: Parser = import_module(f"pipelines.{SUBCOMMANDS[command].module}").parser()
    own = sorted(parser._actions, key=lambda action: action.dest in ("help", "verbose"))
    return [*(flag(parser, action) for action in own), *(OF_BEAM if parser.runs_job else [])]


def text() -> str:
    """The file as it stands in the repository, with one flag on each line."""
    commands = []
    for command in SUBCOMMANDS:
        lines = ",\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in flags_of(command))
        commands.append(f'  "{command}": [\n{lines}\n  ]')
    return "{\n" + ",\n".join(commands) + "\n}\n"


if __name__ == "__main__":
    FLAGS.write_text(text(), encoding="utf-8")
