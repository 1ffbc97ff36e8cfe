"""The templates' contract: metadata, flags, Dockerfile, lock and setup.py say the same."""

import argparse
import json
import re
import runpy
import shlex
import sys
from importlib import metadata as installed
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipelines.cli.flags import Parser, _beam_parser
from rasteret_beam.collection.filters.date_ranges import date_bounds
from rasteret_beam.columns import optional_columns
from rasteret_beam.schema import samples_schema
from templates import lock, metadata
from tests.support.paths import ROOT

TEMPLATES = ROOT / "templates"
COMMANDS = list(metadata.PARSERS)
DOCKERFILE = (TEMPLATES / "Dockerfile").read_text()
LOCK = (TEMPLATES / "requirements.txt").read_text()
README = (TEMPLATES / "README.md").read_text()
WORKERS = [worker["name"] for worker in metadata.WORKERS]


def parameters(command: str) -> dict[str, dict[str, Any]]:
    committed = json.loads((TEMPLATES / f"{command}.json").read_text())
    return {each["name"]: each for each in committed["parameters"]}


def actions(command: str) -> dict[str, argparse.Action]:
    return {action.dest: action for action in metadata.flags_of(metadata.PARSERS[command]())}


def fits(parameter: dict[str, Any], value: str) -> bool:
    return all(re.fullmatch(regex, value) for regex in parameter.get("regexes", []))


@pytest.mark.parametrize("command", COMMANDS)
class TestMetadata:
    def test_is_what_the_flags_give(self, command: str) -> None:
        assert (TEMPLATES / f"{command}.json").read_text() == metadata.text(command), "run `make templates`"

    def test_is_what_dataflow_reads(self, command: str) -> None:
        dataflow = pytest.importorskip("google.cloud.dataflow_v1beta3")
        text = (TEMPLATES / f"{command}.json").read_text()
        parsed = dataflow.types.TemplateMetadata.from_json(text, ignore_unknown_fields=False)
        assert not parsed.streaming
        types = {each.name: dataflow.types.ParameterType(each.param_type).name for each in parsed.parameters}
        assert types == {name: each["paramType"] for name, each in parameters(command).items()}

    def test_has_every_flag_once_and_the_workers_options(self, command: str) -> None:
        committed = json.loads((TEMPLATES / f"{command}.json").read_text())["parameters"]
        assert [each["name"] for each in committed] == [*actions(command), *WORKERS]

    def test_says_what_the_flags_say(self, command: str) -> None:
        parser = metadata.PARSERS[command]()
        for name, action in actions(command).items():
            parameter, expected = parameters(command)[name], str(action.help) % (vars(action) | {"prog": parser.prog})
            assert parameter["helpText"].lower().startswith(expected.lower())
            assert parameter["isOptional"] == (not action.required)
            assert len(parameter["label"]) >= 4
            assert [each["value"] for each in parameter.get("enumOptions", [])] == list(action.choices or [])

    def test_defaults_fit_and_are_the_flags(self, command: str) -> None:
        for name, action in actions(command).items():
            value = parameters(command)[name].get("defaultValue")
            assert (value is None) == (action.default in (None, ""))
            if value is not None:
                assert fits(parameters(command)[name], value)
                assert Parser("test", "")._get_value(action, value) == action.default

    def test_regexes_are_of_the_common_syntax(self, command: str) -> None:
        for parameter in parameters(command).values():
            for regex in parameter.get("regexes", []):
                assert regex.startswith("^") and regex.endswith("$")
                assert not re.search(r"\(\?|\\[1-9bBAZ]", regex), "RE2 has no lookaround and no back reference"

    def test_examples_are_valid(self, command: str) -> None:
        for parameter in parameters(command).values():
            examples = parameter["helpText"].partition("Example: ")[2]
            for example in filter(None, examples.split(" or ")):
                check_valid(command, parameter["name"], example)


def test_examples_name_columns_of_samples() -> None:
    for name in ("extra_columns", "bq_cluster_by"):
        example = parameters("sample_points")[name]["helpText"].partition("Example: ")[2]
        columns = example.split(",")
        assert len(columns) > 1 and set(columns) <= {*samples_schema().names, *optional_columns()}


def test_worker_options_are_beam_s() -> None:
    assert {f"--{name}" for name in WORKERS} <= set(_beam_parser()._option_string_actions)


GS = "gs://my-bucket"
NUMBERS_BAD = ("-1", "1.5", "many", "", "1 ")
VALUES = [
    ("sample_points points", (f"{GS}/a.parquet", f"{GS}/a/", f"{GS}/a b/*.csv"), ("a.parquet", "s3://b/a", f"{GS}/")),
    (
        "sample_points points_table",
        ("my-project:d.plots", "my-project.d.plots", "example.com:p:d.t", "d.t"),
        ("plots", "p:d.t$20230101", "`p.d.t`", "p:d.t x", ""),
    ),
    ("sample_points points_snapshot", ("2023-01-31", "2023-01-31T12:00:00Z", "2023-01-31 12:00"), ("now", "2023", "")),
    ("sample_points points_project", ("my-project", "example.com:my-project"), ("My project", "p", "")),
    ("sample_points requester_pays", ("true", "false", "my-project"), ("My project", "")),
    ("sample_points output", (f"{GS}/a", f"{GS}/a/b", f"{GS}/a.parquet"), ("out/a", f"{GS}/a/", f"{GS}/", "gs://B/a")),
    ("sample_points unsampled", (f"{GS}/left",), (f"{GS}", "left")),
    ("build_collection output", (f"{GS}/c", f"{GS}/c/"), (f"{GS}", "c/", "s3://b/c")),
    ("read_chips geotiff", (f"{GS}/t",), ("t", f"{GS}/")),
    ("sample_points collection", ("aef/v1-annual", f"{GS}/c", "s3://b/c"), ("/local/c", "./c", "~/c", "a b", "")),
    ("sample_points bands", ("A", "A,B", "near infrared,B8A"), ("", ",", "A,", " A", "A,,B")),
    ("sample_points bbox", ("-5,40,5,50", "1.5,.5,2.,3e1"), ("-5,40,5", "1,2,3,4,5", "w,s,e,n", "1, 2, 3, 4")),
    (
        "sample_points date_range",
        (
            "2023-01-01,2023-12-31",
            "2022/2023",
            "2023-01-01T10:00:00Z,2023-01-02 11:30",
            "2023-01-01,2024",
            "2023",
            "2023-01",
            "2023-01/2023-02",
            "2023-01-01/..",
            "../2023",
            "2023-01-01/",
        ),
        ("", "..", "../..", "/", "2023-13", "2023-13-01,2024-01-01", "2023-01-01,2023-01-01T25:00", "a,b", "1,2,3"),
    ),
    ("sample_points match", ("all", "latest"), ("newest", "All", "", "all,latest")),
    ("sample_points max_distance_pixels", ("0", "12"), NUMBERS_BAD),
    ("sample_points cache_mb", ("4", "10", "512"), ("0", "3", *NUMBERS_BAD)),
    ("read_chips max_chip_pixels", ("1", "4194304"), ("0", *NUMBERS_BAD)),
    ("read_chips fill", ("0", "-9999", "1.5e3", "nan", "-inf"), ("none", "", "1,5")),
    ("read_chips all_touched", ("true", "false"), ("yes", "1", "")),
    ("build_collection shards", ("1", "20"), ("0", *NUMBERS_BAD)),
    (
        "build_collection cogs",
        (f"{GS}/s/*.tif", f"{GS}/a.tif,s3://b/b.tif", "https://host/a.tif", "/vsigs/b/a.tif"),
        ("scenes/*.tif", "", f"{GS}/a.tif,", f"{GS}/a.tif,b.tif", "ftp://host/a.tif"),
    ),
    ("build_collection table", (f"{GS}/items.parquet", "s3://b/items"), ("items.parquet", "gs://")),
    ("build_collection bands", ("A,B", "A:0,B:3", "A,B:1", "a:b:0"), ("", "A:", "A:x", ":0", "A,,B", "a:b")),
    ("build_collection datetime_regex", (r"_(\d{8})", r"(\d+).*"), (r"_\d{8}", "", "()")),
    ("build_collection column_map", ("a:id", "a:id,b:datetime", "a b:id"), ("a", "a:", ":id", "", "a:id,b")),
    ("sample_points sdk_container_image", ("eu.gcr.io/p/r/i:1.0", "a/b/c@sha256:" + "0" * 64), ("i", "", "A/b c")),
    ("sample_points number_of_worker_harness_threads", ("1", "12"), ("0", *NUMBERS_BAD)),
]


def check_valid(command: str, name: str, value: str) -> None:
    """A value passes the template, and then the flag takes it too."""
    assert fits(parameters(command)[name], value), f"{name}={value} is refused by the template"
    action = actions(command).get(name)
    if action is not None:
        taken = Parser("test", "")._get_value(action, value)
        if name == "date_range":
            date_bounds(taken)


def test_regexes_take_values_and_refuse_others() -> None:
    known = {command: parameters(command) for command in COMMANDS}
    wrong = []
    for parameter, good, bad in VALUES:
        command, name = parameter.split()
        wrong += [f"{parameter}={value} is refused" for value in good if not fits(known[command][name], value)]
        wrong += [f"{parameter}={value} passes" for value in bad if fits(known[command][name], value)]
    assert wrong == []


def test_values_that_pass_are_taken_by_the_flags() -> None:
    for parameter, good, _ in VALUES:
        for value in good:
            check_valid(*parameter.split(), value)


def test_a_flag_of_an_unknown_kind_is_not_let_through() -> None:
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--when", type=complex)
    with pytest.raises(KeyError, match="--when of sample_points"):
        metadata.form_of("sample_points", action)


# The lock and the Dockerfile


def pins() -> dict[str, str]:
    found = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", LOCK, re.M)
    return {canonicalize_name(name): version for name, version in found}


@pytest.fixture(scope="module")
def packaging() -> dict[str, Any]:
    """What setup.py tells setuptools, which environments of newer Pythons lack."""
    told: dict[str, Any] = {}
    stand_in = SimpleNamespace(setup=told.update, find_packages=lambda include: include)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", stand_in)
        runpy.run_path(str(ROOT / "setup.py"))
    return told


IMAGE_MARKERS = {"python_version": lock.PYTHON, "python_full_version": f"{lock.PYTHON}.0", "sys_platform": "linux"} | {
    "platform_machine": lock.PLATFORM,
    "platform_system": "Linux",
    "implementation_name": "cpython",
}


def is_locked(requirement: Requirement, extra: str = "") -> bool:
    """Whether the lock has what a requirement asks for in the image."""
    if requirement.marker is not None and not requirement.marker.evaluate(IMAGE_MARKERS | {"extra": extra}):
        return True
    version = pins().get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def test_lock_holds_what_setup_asks_for(packaging: dict[str, Any]) -> None:
    asked = [*packaging["install_requires"], *packaging["extras_require"]["gcp"]]
    missing = [each for each in asked if not is_locked(Requirement(each))]
    assert missing == [], "run `make lock`"


def test_lock_holds_what_its_packages_ask_for() -> None:
    """As far as they are installed here, at the same version: what `pip check` says in the image."""
    compared, missing = 0, []
    for name, version in pins().items():
        try:
            found = installed.distribution(name)
        except installed.PackageNotFoundError:
            continue
        if found.version == version:
            extra = "gcp" if name == "apache-beam" else ""
            needs = [Requirement(each) for each in found.requires or []]
            missing += [f"{name} needs {need}" for need in needs if not is_locked(need, extra)]
            compared += 1
    assert missing == [], "run `make lock`"
    assert compared or not pins()


def test_lock_is_all_pins_with_digests_and_no_address() -> None:
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert len(lines) == 2 * len(pins()) > 200
    assert "://" not in LOCK and "--index" not in LOCK and "--find-links" not in LOCK
    assert lines == [part for line in sorted(zip(lines[::2], lines[1::2], strict=True)) for part in line]


def test_lock_of_a_report() -> None:
    def package(name: str, digest: str, direct: bool = False) -> dict[str, Any]:
        info = {"archive_info": {"hashes": {"sha256": digest}}}
        return {"metadata": {"name": name, "version": "1"}, "download_info": info, "is_direct": direct}

    place = {"python_version": lock.PYTHON, "platform_machine": lock.PLATFORM, "sys_platform": "linux"}
    report = {"environment": place, "install": [package("B", "bb"), package("us", "", True), package("a", "aa")]}
    assert lock.lock_text(report) == (lock.HEADER + "a==1 \\\n    --hash=sha256:aa\nb==1 \\\n    --hash=sha256:bb\n")
    with pytest.raises(SystemExit, match=r"3\.11 on linux x86_64, but this is 3\.12"):
        lock.lock_text(report | {"environment": place | {"python_version": "3.12"}})


class TestDockerfile:
    def test_beam_and_python_are_those_of_the_lock(self, packaging: dict[str, Any]) -> None:
        assert re.findall(r"^ARG BEAM=(\S+)$", DOCKERFILE, re.M) == [pins()["apache-beam"]]
        assert f"ARG SDK_IMAGE=apache/beam_python{lock.PYTHON}_sdk:${{BEAM}}\n" in DOCKERFILE
        assert re.search(rf"^ARG PYTHON_IMAGE=python:{re.escape(lock.PYTHON)}-slim", DOCKERFILE, re.M)
        assert re.findall(r"^FROM (.*)$", DOCKERFILE, re.M) == [
            "${SDK_IMAGE} AS sdk",
            "${LAUNCHER_IMAGE} AS launcher",
            "${PYTHON_IMAGE}",
        ]
        assert f"/python{lock.PYTHON.replace('.', '')}-template-launcher-base:${{LAUNCHER}}" in DOCKERFILE
        assert SpecifierSet(packaging["python_requires"]).contains(f"{lock.PYTHON}.0")

    def test_nothing_is_installed_but_the_lock_and_the_project(self) -> None:
        installs = re.findall(r"pip install .*", DOCKERFILE)
        assert len(installs) == 2 and all("--no-deps" in install for install in installs)
        assert "--require-hashes --requirement /template/requirements.txt" in installs[0]
        assert "pip check" in DOCKERFILE

    def test_what_it_copies_is_there(self) -> None:
        sources = [line.split()[1:-1] for line in re.findall(r"^COPY (?!--from).*", DOCKERFILE, re.M)]
        flat = [source for line in sources for source in line]
        wanted = {"setup.py", "README.md", "rasteret_beam", "pipelines", "templates/requirements.txt"}
        assert wanted <= set(flat)
        for command in COMMANDS:
            assert all((ROOT / source.replace("${PIPELINE}", command)).exists() for source in flat)
        passed = (TEMPLATES / "Dockerfile.dockerignore").read_text().splitlines()
        assert {f"!{source}" for source in flat if "$" not in source} <= set(passed)

    def test_it_holds_every_package_of_setup(self, packaging: dict[str, Any]) -> None:
        assert {name.split(".")[0] for name in packaging["packages"]} == {"rasteret_beam", "pipelines"}

    def test_entry_points(self) -> None:
        assert "ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/${PIPELINE}.py" in DOCKERFILE
        assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in DOCKERFILE
        assert re.findall(r"^ARG PIPELINE=(\w+)", DOCKERFILE, re.M)[0] in COMMANDS

    def test_cloud_build_makes_every_image(self) -> None:
        text = (TEMPLATES / "cloudbuild.yaml").read_text()
        assert re.findall(r"--build-arg=PIPELINE=(\w+)", text) == COMMANDS
        assert re.findall(r"--tag=\$_REPOSITORY/(\w+):\$_TAG", text) == COMMANDS
        assert re.findall(r"^  - \$_REPOSITORY/(\w+):\$_TAG", text, re.M) == COMMANDS


# The README's commands


def gcloud_commands() -> list[list[str]]:
    blocks = "".join(re.findall(r"```(?:sh)?\n(.*?)```", README, re.S)).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith("gcloud dataflow flex")]


def given(words: list[str]) -> dict[str, str]:
    """The parameters of a ``gcloud ... run``, whose lists are parted by the character that they name."""
    found: dict[str, str] = {}
    for word in words:
        if word.startswith("--parameters=") or (not word.startswith("--") and word.startswith("^")):
            value = word.removeprefix("--parameters=")
            parted = re.fullmatch(r"\^(.)\^(.*)", value)
            pairs = parted[2].split(parted[1]) if parted else value.split(",")
            found |= dict(pair.split("=", 1) for pair in pairs)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_runs_the_templates_as_their_metadata_says(command: str) -> None:
    runs = [words for words in gcloud_commands() if words[3] == "run" and f"/{command}-$TAG.json" in " ".join(words)]
    assert runs
    filled = {"$BUCKET": GS, "$REPOSITORY": "europe-west4-docker.pkg.dev/p/r", "$TAG": "0.1.0"}
    for words in runs:
        pairs = given(words)
        assert {name for name, each in parameters(command).items() if not each.get("isOptional")} <= set(pairs)
        for name, value in pairs.items():
            for variable, text in filled.items():
                value = value.replace(variable, text)
            check_valid(command, name, value)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_builds_the_templates(command: str) -> None:
    builds = [" ".join(words) for words in gcloud_commands() if words[3] == "build"]
    made = [line for line in builds if f"/{command}-$TAG.json" in line]
    assert len(made) == 1
    assert f"--image=$REPOSITORY/{command}:$TAG" in made[0]
    assert f"--metadata-file=templates/{command}.json" in made[0]
    assert "--sdk-language=PYTHON" in made[0]


def test_help_names_only_the_parameters_that_exclude_each_other() -> None:
    helps = {one["name"]: one["helpText"] for one in metadata.template("sample_points")["parameters"]}
    assert "Give either this or points_table or points_query or retry" in helps["points"]
    assert "Give either this or bigquery" in helps["output"]
