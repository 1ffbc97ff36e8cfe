"""Write the metadata of the Flex Templates from the flags of the commands: ``python -m templates.metadata``.

Each flag becomes a parameter, with the flag's own help, so that the two cannot drift apart. What a
value has to look like in the cloud, where nothing is local, is said here by :class:`Form`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import build_collection, read_chips, sample_points, zonal_statistics
from pipelines.cli import flags, report_flag
from pipelines.cli.switches import truth

FOLDER = Path(__file__).parent
PARSERS: dict[str, Callable[[], flags.Parser]] = {
    "sample_points": sample_points.parser,
    "build_collection": build_collection.parser,
    "read_chips": read_chips.parser,
    "zonal_statistics": zonal_statistics.parser,
}
GROUP = "Workers"
SPELT = {
    "crs": "CRS",
    "vrt": "Virtual rasters",
    "geotiff": "GeoTIFFs",
    "cogs": "COGs",
    "bbox": "Bounding box",
    "mb": "MB",
}


@dataclass(frozen=True)
class Form:
    """What the values of a parameter look like.

    Attributes
    ----------
    kind : str
        One of Dataflow's parameter types.
    regex : str
        What the whole value has to match, in the syntax that RE2, Java and Python share.
    example : str
        A value for the help text.
    """

    kind: str = "TEXT"
    regex: str = ""
    example: str = ""


BUCKET = r"gs://[a-z0-9][-_.a-z0-9]*[a-z0-9]"
OBJECT = rf"{BUCKET}/[^\r\n]+"
PAGE = rf"{BUCKET}/[^\r\n]*[^/\r\n]\.[Hh][Tt][Mm][Ll]?"
PREFIX = rf"{BUCKET}/([^\r\n]*[^/\r\n])"
NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"
DAY = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
CLOCK = r"[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{3}(\d{3})?)?)?(Z|[-+]([01]\d|2[0-3]):[0-5]\d)?"
MOMENT = rf"(\d{{4}}(-(0[1-9]|1[0-2]))?|{DAY}({CLOCK})?)"
DURATION = r"[pP]?\d[\w., ]*|[pP][tT]\d[\w., ]*"
NAME = r"[^,\s]([^,\r\n]*[^,\s])?"
BAND = r"([^,\s]([^,\r\n]*[^,\s])?:\d+|[^,:\s]([^,:\r\n]*[^,:\s])?)"
PAIR = r"[^,:\s][^,:\r\n]*:[^,\s][^,\r\n]*"
SCALED = rf"[^;\r\n]*[^;\s]={NUMBER},{NUMBER}"
RASTER = r"((gs|s3|https?|az|abfss?)://[^,\s][^,\r\n]*|/vsi[a-z0-9_]+/[^,\r\n]+)"
PROJECT = r"[a-z0-9][-a-z0-9.:]*[a-z0-9]"
TABLE = r"([^`$\s]+[:.])?\w+\.[^.:`$\s]+"
COLUMN_TYPE = r"[^,\r\n]+:[a-z]\w*(\[\w+\])?"
COLLECTION = r"((gs|s3|abfss?)://[^\s][^\r\n]*|[A-Za-z0-9_][-A-Za-z0-9_.]*(/[-A-Za-z0-9_.]+)*)"


def whole(pattern: str) -> str:
    return f"^{pattern}$"


def listed(pattern: str) -> str:
    return f"^{pattern}(,{pattern})*$"


FOLDER_FORM = Form("GCS_WRITE_FOLDER", whole(OBJECT), "gs://my-bucket/collection")

BY_FLAG = {
    "points": Form("GCS_READ_FILE", whole(OBJECT), "gs://my-bucket/plots/*.parquet"),
    "points_table": Form("TEXT", whole(TABLE), "my-project:dataset.plots"),
    "points_query": Form(example="SELECT id, geog FROM `my-project.dataset.plots`"),
    "points_index": Form("TEXT", whole(NAME), "plot_number"),
    "points_snapshot": Form("TEXT", whole(rf"{DAY}({CLOCK})?"), "2023-01-31T12:00:00Z"),
    "points_project": Form("TEXT", whole(PROJECT), "my-project"),
    "retry": Form("GCS_READ_FILE", whole(OBJECT), "gs://my-bucket/out/dead-*.parquet"),
    "polygons": Form("GCS_READ_FILE", whole(OBJECT), "gs://my-bucket/fields.parquet"),
    "table": Form("TEXT", whole(r"(gs|s3|abfss?)://[^\s][^\r\n]*"), "gs://my-bucket/items.parquet"),
    "collection": Form("TEXT", whole(COLLECTION), "gs://my-bucket/collection or aef/v1-annual"),
    "geometry_crs": Form(example="4326"),
    "columns": Form("TEXT", listed(NAME), "site,planted"),
    "column_types": Form("TEXT", listed(COLUMN_TYPE), "plot:string,count:int64"),
    "csv_delimiter": Form(example=";"),
    "csv_decimal": Form("TEXT", whole("[.,]"), ","),
    "csv_encoding": Form("TEXT", whole(r"[A-Za-z0-9][-\w.]*"), "cp1252"),
    "datetime_regex": Form("TEXT", whole(r"[^\r\n]*\([^\r\n]+\)[^\r\n]*"), r"_(\d{8})"),
    "column_map": Form("TEXT", listed(PAIR), "scene_id:id,acquired:datetime"),
    "time_column": Form("TEXT", whole(NAME), "planted"),
    "tolerance": Form("TEXT", whole(DURATION), "10D"),
    "limit": Form("NUMBER", whole(r"[1-9]\d*"), "2"),
    "extra_columns": Form("TEXT", listed(NAME), "status,distance"),
    "bq_cluster_by": Form("TEXT", listed(NAME), "record_id,band"),
    "overlap_tolerance": Form("TEXT", whole(DURATION), "60s"),
    "scales": Form("TEXT", f"^{SCALED}(;{SCALED})*$", "B04=0.0001,-0.1;B08=0.0001,-0.1"),
    "quality": Form("TEXT", whole(r"[^\r\n]*[^\s;][^\r\n]*"), "SCL not in 0,1,3,8-10; CLD <= 40"),
    "min_valid": Form("NUMBER", whole(r"(0?\.\d+|1(\.0*)?)"), "0.8"),
    "statistics": Form("TEXT", listed(r"[a-z_]+(\d+(\.\d+)?)?"), "mean,std,percentile_90"),
    "window_pixels": Form("NUMBER", whole(r"\d+"), "2"),
    "radius": Form("NUMBER", whole(r"(\d+(\.\d*)?|\.\d+)"), "50"),
    "max_distance_pixels": Form("NUMBER", whole(r"\d+"), "2"),
    "max_chip_pixels": Form("NUMBER", whole(r"[1-9]\d*"), "1048576"),
    "max_exact_values": Form("NUMBER", whole(r"[1-9]\d*"), "16777216"),
    "zonal_statistics.extra_columns": Form("TEXT", listed(rf"record:{NAME}"), "record:eo:cloud_cover"),
    "shards": Form("NUMBER", whole(r"[1-9]\d*"), "4"),
    "cache_mb": Form("NUMBER", whole(r"([4-9]|[1-9]\d+)"), "512"),
    "fill": Form("NUMBER", whole(rf"({NUMBER}|nan|[-+]?inf)"), "0"),
    "geotiff": Form("GCS_WRITE_FOLDER", whole(OBJECT), "gs://my-bucket/tiffs"),
    "drivers": Form("TEXT", listed(r"[-\w/]+"), "netCDF,HDF5"),
    "build_collection.output": FOLDER_FORM,
    "stac": Form("TEXT", whole(r"(gs|s3|https?)://[^\r\n]+"), "https://earth-search.aws.element84.com/v1"),
    "assets": Form("TEXT", listed(r"[^=,\r\n]+=[^=,\r\n]+"), "red=B04,blue=visual:2"),
    "query": Form("TEXT", whole(r"[^\r\n<>=!]+(<=|>=|!=|=|<|>)[^\r\n]+"), "eo:cloud_cover<20"),
    "alternate": Form("TEXT", whole(NAME), "s3"),
}
"""Forms of single flags, by name or by command and name."""

BY_TYPE: dict[Any, Form] = {
    flags.names: Form("TEXT", listed(NAME), "B02,B03"),
    flags.paths: Form("TEXT", listed(RASTER), "gs://my-bucket/scenes/*.tif"),
    flags.table_path: Form("GCS_WRITE_FILE", whole(PREFIX), "gs://my-bucket/out/run1"),
    flags.prefix: Form("GCS_WRITE_FILE", whole(PREFIX), "gs://my-bucket/out/run1"),
    report_flag.page: Form("GCS_WRITE_FILE", whole(PAGE), "gs://my-bucket/out/report.html"),
    flags.bbox: Form("TEXT", whole(rf"{NUMBER}(,{NUMBER}){{3}}"), "-5,40,5,50"),
    flags.date_range: Form(
        "TEXT", whole(rf"{MOMENT}([,/]({MOMENT}|\.\.)?)?|(\.\.)?[,/]{MOMENT}"), "2023-01-01/2023-12-31"
    ),
    flags.band_indexes: Form("TEXT", listed(BAND), "A00,A01 or A00:0,A05:5"),
    truth: Form("BOOLEAN", whole("(true|false)")),
    flags.payer: Form("TEXT", whole(rf"(true|false|{PROJECT})"), "my-project"),
    int: Form("NUMBER", whole(r"-?\d+")),
    float: Form("NUMBER", whole(NUMBER)),
    None: Form(),
}
"""Forms of all other flags, by the type that parses them."""

WORKERS: list[dict[str, Any]] = [
    {
        "name": "sdk_container_image",
        "label": "Worker image",
        "helpText": "The image that the template was built from: workers need the same packages as the launcher. "
        "Example: europe-west4-docker.pkg.dev/my-project/rasteret-beam/sample_points:0.1.0",
        "isOptional": False,
        "regexes": [whole(r"[a-z0-9][-a-z0-9.:]*(/[-a-z0-9._]+)+(:[-\w.]+)?(@sha256:[0-9a-f]{64})?")],
    },
    {
        "name": "number_of_worker_harness_threads",
        "label": "Threads of a worker process",
        "helpText": "Bundles that a worker process works on at a time, each of which decodes in separate threads. "
        "Dataflow's default for batch jobs is a dozen. Example: 2",
        "isOptional": True,
        "regexes": [whole(r"[1-9]\d*")],
        "paramType": "NUMBER",
    },
    {
        "name": "disk_size_gb",
        "label": "Disk of a worker in GB",
        "helpText": "Boot disk of each worker, which holds the image; 0 is Dataflow's default. Example: 50",
        "isOptional": True,
        "regexes": [whole(r"\d+")],
        "paramType": "NUMBER",
    },
]
"""Options of Beam's own that a job should be given; the launcher hands them on as it does the flags."""


LOCAL = ("round_points", "resume")
"""Flags for runs in the command's process, which a template's jobs never are."""


OF_CATALOGS = "iceberg"
"""How flags begin that templates lack: the image has no pyiceberg, and Dataflow shows parameters, also secrets."""


def template(command: str) -> dict[str, Any]:
    """The metadata of a command's template."""
    parser = PARSERS[command]()
    parameters = [parameter(parser, command, action) for action in flags_of(parser)]
    return {
        "name": label(command),
        "description": parser.description,
        "streaming": False,
        "parameters": [*parameters, *({"paramType": "TEXT"} | worker | {"groupName": GROUP} for worker in WORKERS)],
    }


def flags_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    left_out = ("help", *LOCAL)
    return [each for each in parser._actions if each.dest not in left_out and not each.dest.startswith(OF_CATALOGS)]


def form_of(command: str, action: argparse.Action) -> Form:
    """What a flag's values look like.

    Raises
    ------
    KeyError
        Its type is not known here.
    """
    if action.choices is not None:
        return Form("ENUM", whole(f"({'|'.join(map(str, action.choices))})"))
    found = BY_FLAG.get(f"{command}.{action.dest}") or BY_FLAG.get(action.dest)
    if found is not None:
        return found
    if action.type not in BY_TYPE:
        raise KeyError(f"--{action.dest} of {command} has a type with no form; say in templates/metadata.py what it is")
    return BY_TYPE[action.type]


def parameter(parser: argparse.ArgumentParser, command: str, action: argparse.Action) -> dict[str, Any]:
    """A flag as a parameter of the template."""
    form = form_of(command, action)
    made: dict[str, Any] = {
        "name": action.dest,
        "label": label(action.dest),
        "helpText": help_text(parser, action, form),
        "isOptional": not action.required,
    }
    if form.regex:
        made["regexes"] = [form.regex]
    made["paramType"] = form.kind
    if action.choices is not None:
        made["enumOptions"] = [{"value": choice, "label": choice} for choice in action.choices]
    if action.default not in (None, ""):
        made["defaultValue"] = str(action.default).lower() if action.default is False else str(action.default)
    return made


def label(name: str) -> str:
    words = [SPELT.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def help_text(parser: argparse.ArgumentParser, action: argparse.Action, form: Form) -> str:
    """The flag's help as a sentence, with what the parser knows besides, and an example."""
    text = parser._get_formatter()._expand_help(action)
    sentences = [text[:1].upper() + text[1:]]
    for group in parser._mutually_exclusive_groups:
        if action in group._group_actions:
            others = [other.dest for other in group._group_actions if other is not action]
            names = [name for name in others if not name.startswith(OF_CATALOGS)]
            sentences.append(f"Give either this or {' or '.join(names)}")
    if form.example:
        sentences.append(f"Example: {form.example}")
    return ". ".join(sentences)


def text(command: str) -> str:
    """The metadata as it stands in the repository."""
    return json.dumps(template(command), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for command in PARSERS:
        (FOLDER / f"{command}.json").write_text(text(command))


if __name__ == "__main__":
    main()
