"""The command ``rasteret-beam``: what it imports, how it names itself, and that it does what the modules do."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import sample_points
from pipelines.cli import help_format, main
from pipelines.cli.subcommands import SUBCOMMANDS, as_typed, called_by_name, error_line
from rasteret_beam import Collection, __version__
from tests.support.commands import Outcome, execute
from tests.support.paths import ROOT

HEAVY = ("apache_beam", "pyarrow", "rasterio", "numpy", "rasteret_beam", "shapely", "grpc")


def run(*words: object, **settings: object) -> Outcome:
    """``rasteret-beam`` in a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli.main", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **settings)
    return Outcome(done.returncode, done.stdout, done.stderr)


def of_main(*words: object) -> Outcome:
    return execute(main.main, *words)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["completion", "bash"], ["smaple"], []], ids=str)
def test_a_light_start(words: list[str]) -> None:
    code = f"import sys; from pipelines.cli import main; main.main({words}); print([*sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in re.findall(r"'([\w.]+)'", done.stderr.splitlines()[-1])}
    assert "pipelines" in loaded and loaded & {*HEAVY} == set()


def test_a_subcommand_imports_its_own_module_alone() -> None:
    """And one that runs no job does not import Beam."""
    code = (
        "import sys; from pipelines.cli import main\n"
        "try:\n    main.main(['inspect', '--help'])\n"
        "finally:\n    print({'apache_beam', 'grpc'} & {*sys.modules})\n"
        "    print(sorted(name for name in sys.modules if name[:10] == 'pipelines.' and name.count('.') == 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    expected = ["pipelines.cli", "pipelines.inspect_collection", "pipelines.startup"]
    assert done.returncode == 0 and done.stdout.splitlines()[-2:] == ["set()", str(expected)]
    assert not SUBCOMMANDS["inspect"].runs_job


def test_help_lists_the_subcommands() -> None:
    shown = of_main("--help")
    assert shown.code == 0 and shown.out == of_main("help").out == main.help_text()
    listed = re.findall(r"^  ([a-z]+)  +\S", shown.out.partition("options:")[0], re.M)
    assert listed == [*SUBCOMMANDS, "completion", "help"]
    assert max(map(len, shown.out.splitlines())) < 100
    for subcommand in SUBCOMMANDS.values():
        assert callable(import_module(f"pipelines.{subcommand.module}").main)


def test_without_arguments_the_help_is_an_error() -> None:
    shown = of_main()
    assert (shown.code, shown.out, shown.err) == (2, "", main.help_text())


def test_version() -> None:
    assert of_main("--version") == Outcome(0, f"rasteret-beam {__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("smaple", "unknown command 'smaple'; did you mean sample?"),
        ("Inspect", "unknown command 'Inspect'; did you mean inspect?"),
        ("zonal_statistics", "unknown command 'zonal_statistics'; did you mean zonal?"),
        ("--sample", "unknown command '--sample'; did you mean sample?"),
        ("version", "unknown command 'version'; did you mean --version?"),
        ("--verison", "unknown command '--verison'; did you mean --version?"),
        ("quux", f"unknown command 'quux'; the commands are {', '.join(SUBCOMMANDS)}"),
        (
            "--points=a",
            "the command comes before its flags: rasteret-beam COMMAND --points=a; see rasteret-beam --help",
        ),
    ],
)
def test_a_wrong_command(word: str, line: str) -> None:
    assert of_main(word, "--bands", "A") == Outcome(2, "", f"rasteret-beam: error: {line}\n")


@pytest.mark.parametrize("name", SUBCOMMANDS)
class TestSubcommand:
    def test_help_names_what_was_typed(self, name: str) -> None:
        shown = of_main(name, "--help").out
        assert shown.startswith(f"usage: rasteret-beam {name} ") and "pipelines" not in shown
        assert re.search(rf"^  rasteret-beam {name} ", shown, re.M), "an example"
        assert shown == of_main("help", name).out

    def test_help_of_the_module_names_the_module(self, name: str) -> None:
        module = SUBCOMMANDS[name].module
        shown = execute(import_module(f"pipelines.{module}").main, "--help").out
        assert shown.startswith(f"usage: python -m pipelines.{module} ") and "rasteret-beam" not in shown
        assert re.search(rf"^  python -m pipelines\.{module} ", shown, re.M)

    def test_help_is_in_groups_of_lines_that_fit(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flags of all commands come last, and the first is what the command reads."""
        for columns, most in ((60, 60), (200, 98)):
            monkeypatch.setenv("COLUMNS", str(columns))
            shown = of_main(name, "--help").out
            if columns == 60:  # neither examples nor a flag with its choices are broken
                shown = re.sub(r"\nexamples?:\n.*?\n\n|\n  --\S+ {\S+}(?=\n)", "", shown, flags=re.DOTALL)
            assert max(map(len, shown.splitlines())) <= most
        groups = re.findall(r"^([A-Za-z ]+):$", shown, re.M)
        assert groups[-2:] in (["options", "example"], ["options", "examples"])
        assert groups[0] in ("points", "polygons", "records", "collection", "tables of the run")

    def test_an_unknown_flag(self, name: str) -> None:
        line = f"rasteret-beam {name}: error: unknown flag --verbsoe; did you mean --verbose?\n"
        assert of_main(name, "--verbsoe") == Outcome(2, "", line)


def test_an_error_of_the_library_names_the_command(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    shown = of_main("inspect", nowhere)
    assert shown.code == 1 and shown.err.startswith(
        f"rasteret-beam inspect: error: there is no file or folder {nowhere}"
    )
    flags = ["--points", "p.parquet", "--collection", nowhere, "--bands", "B1", "--output", tmp_path / "out"]
    shown = of_main("sample", *flags)
    assert shown.code == 1 and shown.err.startswith("rasteret-beam sample: error: there is no ")
    shown = execute(sample_points.main, *flags)
    assert shown.code == 1 and shown.err.startswith("error: there is no ")


def test_commands_in_texts_have_the_spelling_of_the_running_one() -> None:
    text = "use ReadChips (python -m pipelines.read_chips), or pipelines.build_collection; not pipelines.demo"
    assert as_typed(text) == text and error_line("a") == "error: a"
    with called_by_name("sample"):
        assert as_typed(text) == "use ReadChips (rasteret-beam chips), or rasteret-beam build; not pipelines.demo"
        assert error_line("a") == "rasteret-beam sample: error: a"
    assert as_typed(text) == text


@pytest.fixture
def inputs(scenes: Collection, points: pa.Table, tmp_path: Path) -> list[str]:
    pq.write_table(points, tmp_path / "p.parquet")
    scenes.export(tmp_path / "c")
    flags = [f"--points={tmp_path}/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    return [*flags, f"--collection={tmp_path}/c", "--bands=B10"]


def test_the_plan_is_that_of_the_flag(inputs: list[str], tmp_path: Path) -> None:
    planned = of_main("plan", *inputs, "--match=latest", "--round_points=500")
    by_flag = of_main("sample", *inputs, "--match=latest", "--round_points=500", "--plan")
    assert planned.code == 0 and planned.out == by_flag.out and planned.figures["points read"] == 2000


def test_a_plan_has_no_outputs(inputs: list[str], tmp_path: Path) -> None:
    for flag in ("--output", "--unsampled", "--bq_method", "--resume", "--plan", "--retry"):
        assert of_main("plan", *inputs, f"{flag}={tmp_path}/out") == Outcome(
            2,
            "",
            f"rasteret-beam plan: error: {flag} does not belong here: a plan reads no pixels and writes nothing; "
            "leave it out\n",
        )


@pytest.mark.usefixtures("same_signal_handlers")
def test_samples_are_those_of_the_module(inputs: list[str], tmp_path: Path) -> None:
    done = of_main("sample", *inputs, f"--output={tmp_path}/a")
    assert done.code == 0 and execute(sample_points.main, *inputs, f"--output={tmp_path}/b").code == 0
    one, other = (pq.read_table(next(tmp_path.glob(f"{name}-*.parquet"))) for name in "ab")
    assert one.num_rows > 1000 and one.sort_by("point_index").equals(other.sort_by("point_index"))


def test_a_reader_that_goes_away_is_not_an_error(tmp_path: Path) -> None:
    """As in ``rasteret-beam inspect --help | head -1``."""
    for words in ("--help", "inspect --help"):
        line = f"{sys.executable} -m pipelines.cli.main {words} | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
        assert done.stderr == "" and done.stdout.startswith("usage: rasteret-beam ")
        assert done.returncode in (0, 141)  # of `head` that ends before or after the text is written


def test_the_console_script(tmp_path: Path) -> None:
    """As the installation has it."""
    script = Path(sys.executable).with_name("rasteret-beam")
    done = subprocess.run([script, "plna"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "rasteret-beam: error: unknown command 'plna'; did you mean plan?\n")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise SystemExit('those of the user')")
    done = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"rasteret-beam {__version__}\n"


def test_the_width_of_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    formatter = help_format.HelpFormatter("x")
    filled = formatter._fill_text("word " * 30 + "\n\nexample:\n  " + "long " * 30, 68, "")
    first, example = filled.split("\n\n")
    assert max(map(len, first.splitlines())) <= 68 and len(example.splitlines()) == 2


def test_usage_keeps_a_flag_and_its_value_together() -> None:
    lines = help_format.usage("rasteret-beam x", " ".join(f"--flag{number} PATH" for number in range(12))).splitlines()
    assert len(lines) > 1 and all(line.endswith(("PATH", "[flags]")) for line in lines)
    assert os.linesep not in lines[0]
