"""Flags of the commands: parse ours, forward Beam's, and refuse others with the nearest known one.

Beam is imported by the functions that need it: commands that run no job start without it.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin

from pipelines.cli import logs
from pipelines.cli.arguments import Spelling, use
from pipelines.cli.help_format import HelpFormatter, usage
from pipelines.cli.subcommands import as_typed, error_line
from pipelines.cli.switches import truth
from rasteret_beam.collection.catalogue import access_with
from rasteret_beam.collection.filters.date_ranges import date_bounds
from rasteret_beam.errors import InputError
from rasteret_beam.job_options import LEAST_CACHE_BYTES
from rasteret_beam.kernels.tables.csv_text import is_csv
from rasteret_beam.model import Access
from rasteret_beam.option_fields import Option, options_of
from rasteret_beam.quality import Quality, parse_qualities
from rasteret_beam.scales import parse_scales

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.cli.runner_options import RunnerOption

log = logging.getLogger(__name__)

OUTER_COMMA = re.compile(r",(?![^(\[]*[)\]])")
"""A comma outside the brackets of a type such as ``decimal128(10, 2)``."""

NEGATIVE = re.compile(r"-\.?\d[\d.,eE+-]*$")
"""A value that begins with a minus: a number or a list of numbers, such as those of a box."""

FILE_SETTINGS = ("column_types", "csv_delimiter", "csv_decimal", "csv_encoding", "layer")

LAUNCHER = "FLEX_TEMPLATE_PYTHON_PY_FILE"
"""The environment variable that is set in the image of a Flex Template."""

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Beam's DirectRunner chooses a runner by the machine; this one is the same everywhere."""

THREADED = (
    "--direct_running_mode=multi_threading is refused: Beam's local runner loses data in that mode. Leave it out "
    "(tiles are decoded on all cores as it is), or use multi_processing."
)


OF_BEAM = """\
Beam's options (--runner, --temp_location, ...) are accepted too. Without --runner the job runs in this process. With
--runner=DataflowRunner the command ends with exit code 0 once the job is submitted; --dry_run=True checks the whole job
and submits nothing."""


class Parser(argparse.ArgumentParser):
    """A parser of a command's flags, without abbreviations, which passes Beam's options on if the command runs a job.

    Parameters
    ----------
    module : str
        Of ``pipelines``.
    description, epilog : str
        Texts of ``--help``; commands in them get the spelling of the running one.
    arguments : {argument: flag}, optional
        As for :meth:`pipelines.cli.arguments.Spelling.of`.
    needed : str
        What the usage shows before ``[flags]``.
    runs_job : bool
        Whether Beam's options are accepted.

    Attributes
    ----------
    elsewhere : {flag: reason}
        Flags of a similar command, and why this one has not got them.
    """

    def __init__(
        self,
        module: str,
        description: str,
        epilog: str = "",
        arguments: Mapping[str, str] | None = None,
        needed: str = "",
        runs_job: bool = True,
    ):
        program = as_typed(f"python -m pipelines.{module}")
        super().__init__(
            prog=program,
            usage=usage(program, needed),
            description=as_typed(description),
            epilog=as_typed(f"{epilog}\n{OF_BEAM}" if runs_job else epilog),
            allow_abbrev=False,
            formatter_class=HelpFormatter,
        )
        self.arguments = arguments or {}
        self.runs_job = runs_job
        self.elsewhere: Mapping[str, str] = {}
        self._negative_number_matcher = NEGATIVE  # argparse takes other words with a minus for flags
        switch(self, "--verbose", "also show the logs of Beam and the runner, and the tracebacks of errors")

    def format_help(self) -> str:
        """The help, with the flags of all commands (``--help``, ``--verbose``) last."""
        self._action_groups.sort(key=lambda group: group is self._optionals)
        return super().format_help()

    def parse(self, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
        """Parse our flags; returns them and Beam's options as given.

        An unknown flag, or the threaded mode of the local runner, ends the command with an error line and exit code 2.

        Raises
        ------
        InputError
            A flag is unknown here and may belong to the runner, but its job server does not answer.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if self.runs_job:
            return self._with_beams_options(words)
        self._refuse_unknown_flags(words, ())
        return self._ours(words)

    def _ours(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        parsed = self.parse_known_args(words) if self.runs_job else (self.parse_args(words), [])
        if parsed[0].verbose:
            logs.be_verbose()
        use(Spelling.of(self, self.arguments))
        return parsed

    def _with_beams_options(self, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        from pipelines.cli.runner_options import beams_spelling

        beam = _beam_parser()
        self._add_runner_options(words, beam)
        if LAUNCHER in os.environ:
            words = self._without_unknown_flags(words, beam)
        self._refuse_unknown_flags(words, beam._option_string_actions)
        ours, rest = self._ours(words)
        rest = beams_spelling(rest, beam)
        known, stray = beam.parse_known_args(rest)
        if stray:
            self.error(f"{stray[0]!r} does not belong to a flag; write lists with commas and without blanks")
        if known.direct_running_mode == "multi_threading":
            self.error(THREADED)
        return ours, rest

    def _add_runner_options(self, words: Sequence[str], beam: argparse.ArgumentParser) -> None:
        """Add the given options of a portable runner to Beam's parser and options.

        Unknown flags are looked up at the job server, if there is one.
        """
        from pipelines.cli.runner_options import FLINK, RunnerOptions

        known = {*self._option_string_actions, *beam._option_string_actions}
        strange = [word.split("=", 1)[0] for word in words if word.startswith("--")]
        strange = [flag for flag in strange if flag not in known]
        options = {f"--{each.name}": each for each in (self._runner_options(words, strange) if strange else FLINK)}
        RunnerOptions.given = [option for flag, option in options.items() if flag in strange]
        for flag, option in options.items():
            if flag not in known:
                option.add_to(beam)
        for flag in sorted({flag for flag in strange if flag in words and flag in options and options[flag].is_on}):
            log.warning("%s is on by default; turn it off with %s=false", flag, flag)

    def _runner_options(self, words: Sequence[str], strange: Sequence[str]) -> "Sequence[RunnerOption]":
        """The options of the runner's job server, or Flink's where there is no job server."""
        from pipelines.cli.job_servers import described_options
        from pipelines.cli.runner_options import FLINK, RunnerOption

        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        finder.add_argument("--job_endpoint", nargs="?")
        endpoint = finder.parse_known_args(words)[0].job_endpoint
        try:
            described = described_options(endpoint) if endpoint and endpoint != "embed" else []
        except InputError:
            if not {flag.removeprefix("--") for flag in strange} <= {option.name for option in FLINK}:
                raise
            described = []  # a plan or a dry run submits nothing and needs no server
        return [RunnerOption.of(each) for each in described] or FLINK

    def _refuse_unknown_flags(self, words: Sequence[str], further: Iterable[str]) -> None:
        known = [*self._option_string_actions, *further]
        for word in words:
            flag = word.split("=", 1)[0]
            if flag.startswith("--") and flag not in known:
                if flag in self.elsewhere:
                    self.error(f"{flag} does not belong here: {self.elsewhere[flag]}")
                near = get_close_matches(flag, known, n=1, cutoff=0.6)
                self.error(f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else "; see --help"))

    def _without_unknown_flags(self, words: Sequence[str], beam: argparse.ArgumentParser) -> list[str]:
        """Ignore flags that a template's launcher adds; the template's metadata has already refused wrong names."""
        known = {*self._option_string_actions, *beam._option_string_actions}
        unknown = [word for word in words if word.startswith("--") and word.split("=", 1)[0] not in known]
        if unknown:
            log.warning("ignoring unknown flags: %s", " ".join(unknown))
        return [word for word in words if word not in unknown]

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2; --help prints the usage."""
        self.exit(2, error_line(message) + "\n")


class _BeamParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, error_line(f"Beam's options: {message}") + "\n")


def _beam_parser() -> _BeamParser:
    """A parser of all options of Beam's Python SDK."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = _BeamParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    waiting = [PipelineOptions]
    while waiting:
        options = waiting.pop()
        waiting += options.__subclasses__()
        if options is not PipelineOptions and options.__module__.startswith("apache_beam."):
            adder = getattr(options, "_add_argparse_args", None)
            if adder is not None:
                adder(parser)
    for action in parser._actions:
        action.required = False
    return parser


def pipeline_options(rest: Sequence[str]) -> "PipelineOptions":
    """Beam's options: with the local runner by default, and without the main session.

    Beam would pickle ``__main__`` for the workers, which import everything from the package.
    """
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions, TestOptions

    flags = {word.split("=", 1)[0] for word in rest}
    runner = [] if "--runner" in flags else [f"--runner={LOCAL_RUNNER}"]
    session = [] if "--save_main_session" in flags else ["--no_save_main_session"]
    options = PipelineOptions([*rest, *runner, *session])
    tests = options.view_as(TestOptions)
    if str(tests.dry_run).lower() in ("false", "no", "0"):  # Beam takes any text for true
        tests.dry_run = False
    FileSystems.set_options(options)  # a pipeline does the same, but outputs are checked before
    return options


def names(text: str) -> list[str]:
    """``A,B`` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def source(text: str) -> str:
    """A path, table or query; empty text, as of an unset shell variable, is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def paths(text: str) -> str:
    """``PATH,PATH``, one or more; :func:`rasteret_beam.readers.storage.listing.split_lists` knows where one ends."""
    if not names(text):
        raise argparse.ArgumentTypeError(f"{text!r} does not name a file")
    return text


OTHER_ENDINGS = (
    ".xlsx .xls .ods .tsv .txt .json .geojson .ndjson .gpkg .shp .fgb .kml .feather .arrow .orc .avro .pq .geoparquet "
    ".zip .gz .bz2 .zst .tif .tiff .nc .sqlite .db .duckdb .html"
).split()
"""Of files that no command writes tables to."""


def prefix(text: str) -> str:
    """The path prefix of Parquet files."""
    path = table_path(text)
    if is_csv(path):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a CSV file, but these rows are written to Parquet only; give a prefix such as out/samples"
        )
    return path


def table_path(text: str) -> str:
    """The path prefix of Parquet files, or the path of a CSV file."""
    if not text.removesuffix(".parquet").strip() or text.endswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a prefix; give one such as out/samples")
    ending = next((each for each in OTHER_ENDINGS if text.lower().endswith(each)), None)
    if ending is not None and not is_csv(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} ends in {ending}, which is not written; give a path that ends in .csv or .csv.gz for a CSV "
            f"file, or a prefix of Parquet files such as {text[: -len(ending)] or 'out/samples'!r}"
        )
    return text


def megabytes(text: str) -> int:
    """The size of the caches in megabytes."""
    least = LEAST_CACHE_BYTES >> 20
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of megabytes; give {least} or more")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; give 1 or more")
    return int(text)


def bbox(text: str) -> tuple[float, ...]:
    """``west,south,east,north`` as numbers."""
    try:
        west, south, east, north = (float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not west,south,east,north in degrees") from None
    return west, south, east, north


def date_range(text: str) -> str:
    """``FIRST/LAST`` or ``FIRST,LAST`` with an optional open side, or one date, month or year; returns checked text."""
    span = text.replace(",", "/")
    try:
        date_bounds(span)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("date_range is ")) from None
    return span


def band_indexes(text: str) -> dict[str, int]:
    """``A:0,B:3`` (or ``A,B``, counted from 0) as band names and 0-based indexes."""
    bands = {}
    for position, part in enumerate(names(text)):
        name, colon, index = part.rpartition(":")
        if colon and not index.isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME or NAME:INDEX")
        band = name if colon else part
        if band in bands:
            raise argparse.ArgumentTypeError(f"band {band!r} is named twice")
        bands[band] = int(index) if colon else position
    return bands


def column_types(text: str) -> dict[str, str]:
    """``plot:string,count:int64`` as columns and the names of their types."""
    types = {}
    parts = [part.strip() for part in OUTER_COMMA.split(text)]
    for part in filter(None, parts):
        column, _, kind = part.partition(":") if part.endswith("]") else part.rpartition(":")
        if not (column and kind):
            raise argparse.ArgumentTypeError(f"{part!r} is not COLUMN:TYPE, such as plot:string")
        types[column] = kind
    return types


def scales(text: str) -> Mapping[str, tuple[float, float]]:
    """``B04=0.0001,-0.1;B08=0.0001,-0.1`` as scale and offset by band."""
    try:
        return parse_scales(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def quality(text: str) -> tuple[Quality, ...]:
    """Quality rules, separated by ``;``."""
    try:
        return parse_qualities(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Merge(argparse.Action):
    """The mappings, by ``what``, of a flag that is given several times, as one."""

    def __init__(self, *args: Any, what: str, **settings: Any):
        super().__init__(*args, **settings)
        self.what = what

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest)
        if twice := [band for band in values if before and band in before]:
            raise argparse.ArgumentError(self, f"{self.what} {twice[0]!r} is given twice; give each {self.what} once")
        setattr(namespace, self.dest, before | values if before else values)


def format_flags(parser: argparse._ActionsContainer, what: str) -> None:
    """Add the flags for the format of CSV files, and for the layer of vector files."""
    parser.add_argument(
        "--column_types",
        type=column_types,
        action=Merge,
        what="column",
        metavar="COLUMN:TYPE,...",
        help=f"types of CSV columns in {what}, such as plot:string,count:int64; a column without a type is text "
        "unless all of its values are numbers in plain form (7, not 007)",
    )
    parser.add_argument(
        "--csv_delimiter", metavar="CHARACTER", help="field separator in CSV (default: comma, or tab in .tsv)"
    )
    parser.add_argument("--csv_decimal", metavar=".|,", help="decimal separator in CSV (default: .)")
    parser.add_argument("--csv_encoding", metavar="NAME", help="encoding of CSV, such as cp1252 (default: utf-8)")
    parser.add_argument(
        "--layer", metavar="NAME", help="layer of GeoPackages and other vector files (default: the one with geometries)"
    )


def file_settings(flags: argparse.Namespace) -> dict[str, Any]:
    """The settings of CSV and vector files from the flags, by argument."""
    given = {name: getattr(flags, name) for name in FILE_SETTINGS}
    return {name: value for name, value in given.items() if value is not None}


def payer(text: str) -> bool | str:
    """``true``, ``false`` or the project to bill."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a project, true nor false")
    return truth(text) if text.lower() in ("true", "false") else text


def switch(parser: argparse._ActionsContainer, flag: str, text: str) -> None:
    """Add a flag that is off by default and on if given; ``true`` or ``false`` may follow it."""
    parser.add_argument(flag, nargs="?", type=truth, const=True, default=False, metavar="true|false", help=text)


def option_flags(parser: argparse._ActionsContainer, definition: type) -> None:
    """Add a flag for each option of a definition, such as :class:`rasteret_beam.options.SampleOptions`."""
    for each in options_of(definition):
        if each.facts.flag != "":
            _option_flag(parser, each)


def _option_flag(parser: argparse._ActionsContainer, each: Option) -> None:
    flag, text = f"--{each.facts.flag or each.name}", each.facts.help
    if each.type is bool:
        switch(parser, flag, text)
        return
    settings: dict[str, Any] = {"metavar": each.facts.metavar, "default": each.default, "help": text}
    if get_origin(each.type) is Mapping:
        settings |= {"type": scales, "action": Merge, "what": "band", "default": None}
        settings["help"] += "; may be repeated, or with ; between bands"
    elif each.choices is not None:
        settings |= {"choices": each.choices, "help": f"{text} (default: {each.default})"}
        del settings["metavar"]
    elif each.type == tuple[Quality, ...]:
        settings |= {"type": quality, "action": "extend", "help": f"{text}; several with ';', or the flag repeated"}
    elif each.facts.unit == 1 << 20:
        settings |= {"type": megabytes, "default": each.default >> 20, "help": f"{text} (default: %(default)s)"}
    else:
        listed = each.type == tuple[str, ...]
        settings |= {"type": names, "action": "extend"} if listed else {"type": _without_none(each.type)}
        settings["help"] += f" (default: {each.default})" if isinstance(each.default, str) else ""
    if isinstance(each.default, tuple):
        settings["default"] = None
        settings["help"] += f" (default: {','.join(each.default)})" if each.default else ""
    parser.add_argument(flag, **settings)


def _without_none(kind: Any) -> Any:
    """The type of an option's value where it is given."""
    return next((each for each in get_args(kind) if each is not NoneType), kind)


def option_values(flags: argparse.Namespace, definition: type) -> dict[str, Any]:
    """The options that flags give, by name; what a flag leaves out has the definition's default."""
    given = {}
    for each in options_of(definition):
        value = getattr(flags, each.facts.flag or each.name, None) if each.facts.flag != "" else None
        if value is not None:
            given[each.name] = value * each.facts.unit if each.facts.unit != 1 else value
    return given


def access_flags(parser: argparse._ActionsContainer, what: str, prefix: str = "") -> None:
    """Add the flags for access to buckets."""
    switch(parser, f"--{prefix}anonymous", f"read {what} without credentials")
    parser.add_argument(
        f"--{prefix}requester_pays",
        type=payer,
        default=False,
        metavar="PROJECT|true",
        help=f"pay for the requests to {what}: the Google project to bill, or true for s3://",
    )


def raster_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags for the rasters that may be opened."""
    switch(parser, "--vrt", "also open virtual rasters (VRT) and the files that they name")
    parser.add_argument(
        "--drivers",
        type=names,
        action="extend",
        metavar="NAME,...",
        help="GDAL drivers to use in addition to those of GeoTIFF, JPEG 2000, PNG and JPEG, such as netCDF,HDF5",
    )
    switch(
        parser,
        "--allow_local",
        "allow a collection, record table or VRT in a bucket or on the web to name local files and loopback hosts",
    )


def access(flags: argparse.Namespace, prefix: str = "") -> Access | None:
    """The access to buckets and rasters that the flags give; None if they give none."""
    given = _given(flags, prefix)
    return Access(**given) if given else None


def access_of_collection(flags: argparse.Namespace) -> Access | None:
    """As :func:`access`; options without a flag come from the catalogue, if the collection is in it."""
    return access_with(flags.collection, _given(flags, ""))


def _given(flags: argparse.Namespace, prefix: str) -> dict[str, Any]:
    found = {name: getattr(flags, f"{prefix}{name}") for name in ("anonymous", "requester_pays")}
    if not prefix and hasattr(flags, "drivers"):
        found |= {"vrt": flags.vrt, "drivers": tuple(flags.drivers or ()), "allow_local": flags.allow_local}
    return {name: value for name, value in found.items() if value}


def subset_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags that select records of a collection."""
    parser.add_argument(
        "--bbox",
        type=bbox,
        metavar="W,S,E,N",
        help="only records that intersect this box in degrees; west > east crosses the antimeridian "
        "(--bbox -5,40,5,50)",
    )
    parser.add_argument(
        "--date_range",
        type=date_range,
        metavar="FIRST/LAST",
        help="only records in this range of ISO dates (UTC, inclusive); a single date, month (2023-06) or year covers "
        "all of it, and 2023-01-01/.. is open",
    )
