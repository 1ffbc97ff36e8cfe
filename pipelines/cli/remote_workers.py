"""Checks of jobs whose workers run on other machines, which cannot read files of this one."""

import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)

from rasteret_beam.collection.catalogue import find_entry, looks_like_path
from rasteret_beam.collection.collection import Collection
from rasteret_beam.errors import InputError, RasteretBeamError, listed, without_secrets
from rasteret_beam.kernels.storage.hosts import LOOPBACK, host_of, nearness
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import as_place

SERVED = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(_streaming)?/")
"""GDAL filesystems on other machines."""

URL_INSIDE = re.compile(r"\w+:(\d+:)*\"?[A-Za-z][A-Za-z0-9+.-]+://")
"""Beginning of the name of a dataset inside a file on another machine."""

REMOTE = rf"^([A-Za-z][A-Za-z0-9+.-]+://|{SERVED.pattern})"
"""Paths that :func:`is_on_this_machine` need not check."""

BUCKET = "put it in a bucket, such as gs://my-bucket/..."
SHARED = "this works only if each worker has it under the same path, as on a shared filesystem"


@dataclass(frozen=True)
class Workers:
    """Workers on other machines.

    Attributes
    ----------
    name : str
    may_share : bool
        They may share a filesystem with this machine.
    """

    name: str
    may_share: bool


def workers_elsewhere(options: PipelineOptions) -> Workers | None:
    """The workers of a job if they run on other machines."""
    runner = str(options.view_as(StandardOptions).runner).rpartition(".")[2].lower()
    if runner.endswith("dataflowrunner"):
        return Workers("Dataflow's workers", may_share=False)
    portable = options.view_as(PortableOptions)
    if portable.environment_type == "LOOPBACK" or portable.job_endpoint == "embed":
        return None
    if not (portable.job_endpoint or runner in ("flinkrunner", "sparkrunner")):
        return None
    address = next((each for each in _addresses(options, runner) if not _is_here(each)), None)
    return Workers(f"the workers behind {address}", may_share=True) if address else None


def _addresses(options: PipelineOptions, runner: str) -> list[str]:
    """HOST:PORT of the servers and workers that the options of a portable job name."""
    portable = options.view_as(PortableOptions)
    masters = {
        "flinkrunner": options.view_as(FlinkRunnerOptions).flink_master,
        "sparkrunner": options.view_as(SparkRunnerOptions).spark_master_url,
    }
    given = [portable.job_endpoint or masters.get(runner)]
    if portable.environment_type == "EXTERNAL":
        given += [portable.environment_config, portable.lookup_environment_option("external_service_address")]
    return [each for each in given if isinstance(each, str) and not each.startswith(("[", "local"))]


def _is_here(address: str) -> bool:
    host = host_of(f"http://{address.rpartition('://')[2]}")
    return nearness(host) == LOOPBACK or host in (socket.gethostname().lower(), socket.getfqdn().lower())


def check_paths(
    options: PipelineOptions,
    given: Mapping[str, Sequence[str] | str | None],
    load: Callable[[], Collection] | None = None,
) -> None:
    """Refuse flags with local paths that workers cannot read; warn if they may be shared.

    Parameters
    ----------
    given : {flag: path, paths or None}
    load : function, optional
        Returns the collection, whose rasters are checked too if it is one of these paths.

    Raises
    ------
    InputError
        Names the flags.
    """
    workers = workers_elsewhere(options)
    if workers is None:
        return
    paths = [(flag, [each] if isinstance(each, str) else each or []) for flag, each in given.items()]
    local = [f"{flag} {path}" for flag, each in paths for path in each if is_on_this_machine(path)]
    if not local:
        return
    what = f"{listed(local)} {'is' if len(local) == 1 else 'are'} on this machine"
    if load is not None and not workers.may_share and any(each.startswith("--collection ") for each in local):
        with suppress(RasteretBeamError):  # it is refused anyway
            some = _rasters_here("the collection", _hrefs(load()))
            what += f" (and {some})" if some else ""
    _object(workers, what)


def collection_place(text: str) -> str:
    """The path of a collection that a flag names by its path or its id in the catalogue.

    Raises
    ------
    MissingInputError
        No dataset has this id.
    """
    return text if looks_like_path(text) else find_entry(text).data


def is_on_this_machine(href: str) -> bool:
    """Whether a path or an href for GDAL is on a disk of this machine."""
    place = Location.of(as_place(href))
    served = SERVED.search(place.text) or (place.is_subdataset and URL_INSIDE.match(place.text))
    return not (place.is_remote or served)


def check_collection(options: PipelineOptions, collection: Collection, bands: Sequence[str]) -> None:
    """Refuse a collection with local rasters that workers cannot read; warn if they may be shared.

    Raises
    ------
    InputError
        Counts the hrefs and names one.
    """
    if workers_elsewhere(options) is not None:
        check_hrefs(options, "the collection", _hrefs(collection, bands))


def _hrefs(collection: Collection, bands: Sequence[str] | None = None) -> pa.ChunkedArray:
    assets = collection.to_table(["assets"])["assets"].combine_chunks()
    names = collection.bands if bands is None else bands
    columns = [pc.struct_field(assets, [band, "href"]).cast(pa.string()) for band in names]
    return pa.chunked_array(columns, pa.string())


def check_hrefs(options: PipelineOptions, what: str, hrefs: pa.ChunkedArray | Iterable[str]) -> None:
    """Refuse local rasters that workers cannot read; warn if they may be shared.

    Raises
    ------
    InputError
        Counts them and names one.
    """
    workers = workers_elsewhere(options)
    if workers is None:
        return
    texts = hrefs if isinstance(hrefs, pa.ChunkedArray) else pa.chunked_array([pa.array(list(hrefs), pa.string())])
    some = _rasters_here(what, texts)
    if some:
        _object(workers, f"{some}, {'is' if some.startswith('1 of') else 'are'} on this machine")


def _rasters_here(what: str, hrefs: pa.ChunkedArray) -> str:
    """A text with the number of local rasters and one of them; empty if there are none."""
    files = pc.unique(hrefs.drop_null())
    near = files.filter(pc.invert(pc.match_substring_regex(files, REMOTE))) if len(files) else files
    local = [href for href in near.to_pylist() if is_on_this_machine(href)]
    return f"{len(local)} of {len(files)} rasters of {what}, such as {local[0]}" if local else ""


def _object(workers: Workers, what: str) -> None:
    if not workers.may_share:
        raise InputError(f"{without_secrets(what)}, which {workers.name} cannot read; {BUCKET}")
    print(f"warning: {without_secrets(what)}, and {workers.name} are not: {SHARED}", file=sys.stderr)


def check_packages(options: PipelineOptions) -> None:
    """Warn if workers would lack this package.

    Raises
    ------
    InputError
        The file of --setup_file does not exist.
    """
    setup, workers = options.view_as(SetupOptions), workers_elsewhere(options)
    if setup.setup_file and not os.path.exists(setup.setup_file):
        raise InputError(f"--setup_file is {setup.setup_file}, which does not exist; give the setup.py of this package")
    if workers is None or setup.setup_file or setup.requirements_file or setup.extra_packages:
        return
    portable = options.view_as(PortableOptions)
    if not workers.may_share and not options.view_as(WorkerOptions).sdk_container_image:
        print(
            f"warning: {workers.name} lack this package: give --sdk_container_image IMAGE "
            "(see templates/README.md for how to build one), or --setup_file=./setup.py",
            file=sys.stderr,
        )
    named = portable.environment_config or portable.lookup_environment_option("docker_container_image")
    if workers.may_share and portable.environment_type in (None, "DOCKER") and not named:
        print(
            f"warning: {workers.name} run Beam's image, which lacks this package: give --environment_config=IMAGE, "
            "or another --environment_type (docs/flink.md)",
            file=sys.stderr,
        )
