"""What is packed: the sdist is the repository, the wheel is built from it, and the commands run from that."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from pipelines.cli.subcommands import SUBCOMMANDS
from rasteret_beam import __version__
from rasteret_beam.errors import how_to_install
from tests.support.paths import ROOT

NAME = f"rasteret_beam-{__version__}"
ADDED = re.compile(r"PKG-INFO|setup\.cfg|rasteret_beam\.egg-info/.*")
"""What setuptools adds to an sdist."""

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: git knows what belongs to it")


def run(*words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Neither this checkout, nor coverage or options of the running tests.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
    words = [str(word) for word in words]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=kept | environment)


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def sdist(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of the files that git has, made without a word of warning."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests" / "__pycache__").mkdir()
    (folder / "tests" / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"")
    done = run(sys.executable, "-W", "default", "setup.py", "sdist", folder=folder)
    assert done.returncode == 0, done.stderr
    assert not re.search("warning|deprecat", done.stdout + done.stderr, re.IGNORECASE), done.stderr
    return folder / "dist" / f"{NAME}.tar.gz"


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / NAME


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist by the backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    done = run(sys.executable, "-m", "pip", "wheel", "--verbose", *options, sdist, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"Deprecat\w*Warning|\bWARNING\b", done.stdout + done.stderr), done.stdout
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in; what it needs is that of the running tests."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--target", folder]
    done = run(sys.executable, "-m", "pip", "install", "--quiet", *options, wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@needs_git
class TestPackages:
    def test_the_sdist_is_what_git_has(self, sdist: Path, tracked: set[str]) -> None:
        with tarfile.open(sdist) as archive:
            packed = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
        assert tracked - packed == set()
        assert {name for name in packed - tracked if not ADDED.fullmatch(name)} == set()

    def test_the_tests_of_the_sdist_run_from_it(self, unpacked: Path) -> None:
        """All of them find what they import; some that read the repository's files pass."""
        collected = run(
            sys.executable, "-m", "pytest", "-q", "--collect-only", folder=unpacked, PYTHONPATH=str(unpacked)
        )
        assert collected.returncode == 0 and "error" not in collected.stdout.splitlines()[-1], collected.stdout[-2000:]
        some = ["unit/test_layers", "unit/kernels/test_hosts", "commands/test_templates", "commands/test_packaging"]
        paths = [f"tests/{name}.py" for name in some]
        done = run(
            sys.executable, "-m", "pytest", "-q", "-m", "not slow", *paths, folder=unpacked, PYTHONPATH=str(unpacked)
        )
        assert done.returncode == 0, done.stdout[-3000:]

    def test_the_wheel_holds_the_packages_alone(self, wheel: Path, tracked: set[str]) -> None:
        with zipfile.ZipFile(wheel) as archive:
            packed = set(archive.namelist())
            scripts = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
            metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
        data = {"rasteret_beam/py.typed", "rasteret_beam/collection/catalogue.json", "pipelines/cli/completion.json"}
        data.add("rasteret_beam/transforms/yaml/providers.yaml")
        code = {name for name in tracked if re.fullmatch(r"(rasteret_beam|pipelines)/.*\.py", name)}
        assert {name for name in packed if not name.startswith(f"{NAME}.dist-info/")} == code | data
        assert f"{NAME}.dist-info/licenses/LICENSE" in packed
        assert scripts.split("\n")[:2] == ["[console_scripts]", "rasteret-beam = pipelines.cli.main:run"]
        headers = metadata.partition("\n\n")[0].splitlines()
        assert {"Name: rasteret-beam", f"Version: {__version__}", "License: Apache-2.0"} <= set(headers)
        assert not [line for line in headers if line.startswith("Classifier: License")]
        assert {f"Provides-Extra: {extra}" for extra in ("gcp", "aws", "demo", "docs", "test", "dev")} <= set(headers)

    def test_the_commands_run_from_the_wheel(self, installed: Path, tmp_path: Path) -> None:
        """Also where the working folder has pipelines of its own."""
        (tmp_path / "pipelines").mkdir()
        (tmp_path / "pipelines" / "__init__.py").write_text("raise SystemExit('those of the user')")
        where = "import rasteret_beam, pipelines; print(rasteret_beam.__file__, pipelines.__file__)"
        found = run(sys.executable, "-P", "-c", where, folder=tmp_path, PYTHONPATH=str(installed))
        assert found.stdout.split() == [f"{installed}/{name}/__init__.py" for name in ("rasteret_beam", "pipelines")]
        for name, module in ((name, subcommand.module) for name, subcommand in SUBCOMMANDS.items()):
            done = run(
                sys.executable, "-P", "-m", f"pipelines.{module}", "--help", folder=tmp_path, PYTHONPATH=str(installed)
            )
            assert done.returncode == 0 and f"python -m pipelines.{module}" in done.stdout, done.stderr
            done = run(installed / "bin" / "rasteret-beam", name, "--help", folder=tmp_path, PYTHONPATH=str(installed))
            assert done.returncode == 0 and f"usage: rasteret-beam {name} " in done.stdout, done.stderr


def interpreters() -> dict[str, Path]:
    """The Pythons of this machine that the package is for, by version: this one, and what PATH and pyenv have."""
    found = {version_of(Path(sys.executable)): Path(sys.executable)}
    for version in SUPPORTED:
        places = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
        for place in filter(None, places):
            if version_of(Path(place)) == version:
                found.setdefault(version, Path(place))
    return found


def version_of(python: Path) -> str:
    """Such as 3.12; empty if it does not run."""
    shown = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])", folder=Path.home())
    return shown.stdout.strip()


SUPPORTED = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.py").read_text())


@pytest.mark.slow
@needs_git
class TestNewEnvironment:
    """The wheel with what it requires, from the package index, in an environment that has nothing else."""

    @pytest.fixture(scope="class", params=SUPPORTED)
    def environment(
        self, request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Path]:
        if request.param not in (known := interpreters()):
            pytest.skip(f"there is no Python {request.param}")
        folder = tmp_path_factory.mktemp(f"python{request.param}")
        assert run(known[request.param], "-m", "venv", folder, folder=folder).returncode == 0
        done = run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, folder=folder)
        assert done.returncode == 0, done.stderr
        yield folder
        shutil.rmtree(folder)  # 700 MB

    def test_the_command_runs(self, environment: Path, tmp_path: Path) -> None:
        """On two files and three points; a user would do the same."""
        command = environment / "bin" / "rasteret-beam"

        def of_user(*words: object, code: int = 0) -> str:
            done = run(command, *words, folder=tmp_path, PYTHONWARNINGS="error::DeprecationWarning:pipelines")
            assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
            return done.stdout

        write_inputs(tmp_path)
        assert of_user("--version") == f"rasteret-beam {__version__}\n"
        assert of_user("completion", "bash").startswith("# Completion of rasteret-beam for bash.")
        of_user("build", "--cogs", "scenes", "--datetime_regex", r"_(\d{8})", "--output", "collection")
        assert "records     2\n" in of_user("inspect", "collection", "--html", "page.html")
        inputs = ["--points", "points.csv", "--x_column", "x", "--y_column", "y", "--geometry_crs", 32631]
        inputs += ["--collection", "collection", "--bands", "B1"]
        assert re.search(r"^rows +4$", of_user("plan", *inputs), re.MULTILINE)
        assert re.search(r"^rows +4$", of_user("sample", *inputs, "--output", "out/samples"), re.MULTILINE)
        rows = pq.read_table(next((tmp_path / "out").glob("samples-*.parquet"))).sort_by("datetime")
        assert sorted(rows["value"].to_pylist()) == [2022, 2022, 2023, 2023]
        of_user("sample", *inputs, "--output", "out/samples", "--match", "latset", code=2)

    def test_every_module_can_be_imported(self, environment: Path, tmp_path: Path) -> None:
        """Without the extras; the demonstration has one."""
        program = (
            "import pkgutil, importlib, rasteret_beam, pipelines\n"
            "for package in (rasteret_beam, pipelines):\n"
            "    for each in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
            "        if each.name != 'pipelines.demo':\n"
            "            importlib.import_module(each.name)\n"
            "print(rasteret_beam.__file__)"
        )
        done = run(environment / "bin" / "python", "-c", program, folder=tmp_path)
        assert done.returncode == 0 and done.stdout.startswith(str(environment)), done.stderr


def write_inputs(folder: Path) -> None:
    """Two rasters, whose pixels are their year, and three points, one of them elsewhere."""
    (folder / "scenes").mkdir()
    for year in (2022, 2023):
        profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "int16", "crs": "EPSG:32631"}
        profile |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "transform": Affine(10, 0, 5e5, 0, -10, 54e5)}
        with rasterio.open(folder / "scenes" / f"scene_{year}0630.tif", "w", **profile) as file:
            file.write(np.full((1, 64, 64), year, dtype="int16"))
    (folder / "points.csv").write_text("id,x,y\n1,500005,5399995\n2,500305,5399795\n3,900005,5399995\n")


def test_pipelines_of_the_users_own_are_passed_over(tmp_path: Path) -> None:
    """``python -m`` alone takes the working folder's, unless an editable install comes before it."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise SystemExit('those of the user')")
    command = ["-m", "pipelines.sample_points", "--help"]
    by_flag = run(sys.executable, "-P", *command, folder=tmp_path, PYTHONPATH=str(ROOT))
    assert by_flag.returncode == 0 and "python -m pipelines.sample_points" in by_flag.stdout
    # A module of the same package that loads at once; the user's package would end with its message.
    command = ["-m", "pipelines.startup"]
    by_variable = run(sys.executable, *command, folder=tmp_path, PYTHONPATH=str(ROOT), PYTHONSAFEPATH="1")
    assert (by_variable.returncode, by_variable.stderr) == (0, "")


@pytest.mark.parametrize("repository", ["", "owner/project"])
def test_links_of_the_readme_on_the_package_index(repository: str) -> None:
    """The index has no other file: links are absolute, by the address that a release workflow has, or plain text."""
    words = [sys.executable, "setup.py", "--quiet", "--long-description"]
    shown = run(*words, folder=ROOT, GITHUB_REPOSITORY=repository).stdout
    links = re.findall(r"\]\(([^)]+)\)", shown)
    assert links and all(link.startswith("https://") for link in links)
    page = f"https://github.com/owner/project/blob/v{__version__}/docs/sampling.md#how-tiles-are-read"
    picture = f"https://raw.githubusercontent.com/owner/project/v{__version__}/docs/images/demo.png"
    assert (page in links) == (picture in links) == ("![" in shown) == bool(repository)
    assert "[limits]" in shown if repository else "(limits)" in shown


def test_no_text_sends_users_to_an_index_without_the_package() -> None:
    """Until there is a release: from a checkout, or a wheel."""
    named = re.compile(r"pip install (?:-\S+ )*['\"]?rasteret[-_]beam\b(?!-VERSION)")
    documents = [path for folder in (".", "docs", "templates", "benchmarks") for path in ROOT.glob(f"{folder}/*.md")]
    texts = [*ROOT.glob("rasteret_beam/**/*.py"), *ROOT.glob("pipelines/*.py"), *documents]
    found = {str(path.relative_to(ROOT)) for path in texts if named.search(path.read_text())}
    assert len(texts) > 100 and found <= {"README.md", "CHANGELOG.md"}
    assert "`pip install rasteret-beam` finds nothing of ours" in (ROOT / "README.md").read_text()
    assert how_to_install("gcp") == (
        "in a checkout of rasteret_beam, run pip install '.[gcp]'; with a wheel, "
        "pip install 'rasteret_beam-VERSION-py3-none-any.whl[gcp]'"
    )


def test_the_release_workflow_publishes_only_when_it_is_switched_on() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    publish = workflow[workflow.index("  publish:") :]
    assert "needs: test" in publish and "vars.PUBLISH_TO_PYPI == 'true'" in publish
    assert "id-token: write" in publish and "id-token" not in workflow[: workflow.index("  publish:")]
    assert not re.search("password|api[-_]token|secrets\\.", workflow)
