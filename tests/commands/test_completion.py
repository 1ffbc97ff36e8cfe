"""Completion of ``rasteret-beam`` in shells, which run the scripts."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.cli import completion, main
from pipelines.cli.flags import _beam_parser
from pipelines.cli.subcommands import SUBCOMMANDS
from templates import completion as made
from tests.support.commands import Outcome, execute

SCRIPTS = {shell: getattr(completion, shell)(completion.flags()) for shell in completion.SHELLS}


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def test_the_flags_are_those_of_the_parsers() -> None:
    assert completion.FLAGS.read_text() == made.text(), "run `make templates`"
    stored = json.loads(completion.FLAGS.read_text())
    assert list(stored) == list(SUBCOMMANDS)
    named = {each["name"]: each for each in stored["sample"]}
    assert named["--layout"]["choices"] == ["long", "values", "columns"]
    kinds = {name: named[name]["takes"] for name in ("--points", "--x_column", "--resume", "--help", "--output")}
    assert list(kinds.values()) == ["path", "value", "switch", "nothing", "path"]


def test_options_of_beam_exist() -> None:
    assert {each["name"] for each in made.OF_BEAM} <= set(_beam_parser()._option_string_actions)


@pytest.mark.parametrize("shell", completion.SHELLS)
class TestScript:
    def test_it_is_valid(self, shell: str, tmp_path: Path) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        path = tmp_path / "script"
        path.write_text(SCRIPTS[shell])
        done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_the_command_prints_it(self, shell: str) -> None:
        assert execute(main.main, "completion", shell) == Outcome(0, SCRIPTS[shell], "")


def test_a_wrong_shell() -> None:
    given = {("tcsh",): "'tcsh' is not a shell that is known here", (): "the shell is missing"}
    for words, why in given.items():
        line = f"rasteret-beam completion: error: {why}; give one of bash, zsh, fish\n"
        assert execute(main.main, "completion", *words) == Outcome(2, "", line)


def test_how_it_is_installed() -> None:
    shown = execute(main.main, "completion", "--help")
    assert shown.code == 0 and all(f"rasteret-beam completion {shell}" in shown.out for shell in completion.SHELLS)
    assert execute(main.main, "help", "completion") == shown


def in_bash(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of some words, which it has split at ``=``."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"{SCRIPTS['bash']}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _rasteret_beam\n"
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "--norc", "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.stderr == "", done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plots one.parquet").touch()
    (tmp_path / "plots_two.parquet").touch()
    return tmp_path


class TestBash:
    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            (["sam"], ["sample"]),
            (["--v"], ["--version"]),
            (["sample", "--layout", ""], ["long", "values", "columns"]),
            (["sample", "--layout", "="], ["long", "values", "columns"]),
            (["sample", "--layout", "=", "va"], ["values"]),
            (["sample", "--resume", "t"], ["true"]),
            (["sample", "--resume", "--poi"], ["--points", "--points_table", "--points_query"]),
            (["sample", "--x_column", ""], []),
            (["sample", "--x_column", "=", ""], []),
            (["sample", "--runner", "F"], ["FlinkRunner"]),
            (["sample", "--points", "plots"], ["plots one.parquet", "plots_two.parquet"]),
            (["sample", "--points", "=", "plots_"], ["plots_two.parquet"]),
            (["inspect", "plots_"], ["plots_two.parquet"]),
            (["inspect", "--h"], ["--html", "--help"]),
            (["inspect", "--runner"], []),
            (["completion", ""], ["bash", "zsh", "fish"]),
            (["help", "z"], ["zonal"]),
            (["nothing", ""], []),
        ],
        ids=lambda words: " ".join(words) if isinstance(words, list) else "",
    )
    def test_what_it_offers(self, folder: Path, words: list[str], offered: list[str]) -> None:
        found = in_bash(folder, "rasteret-beam", *words)
        if words[-1] == "--poi":
            assert set(offered) < set(found) and all(word.startswith("--points") for word in found)
        else:
            assert sorted(found) == sorted(offered)

    def test_all_commands_and_flags(self, folder: Path) -> None:
        assert in_bash(folder, "rasteret-beam", "") == [*completion.COMMANDS, *completion.OPTIONS]
        for command, known in completion.flags().items():
            assert in_bash(folder, "rasteret-beam", command, "--") == [
                flag.name for flag in known if flag.name.startswith("-")
            ]


@needs("fish")
def test_fish_offers(folder: Path) -> None:
    lines = ["sam", "sample --layout ", "sample --layout=v", "inspect plots_", "sample --points plots_", "completion b"]
    program = SCRIPTS["fish"] + "".join(f'\necho "> {line}"; complete -C"rasteret-beam {line}"' for line in lines)
    done = subprocess.run(["fish", "--no-config", "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("> "):
            found[line[2:]] = []
        else:
            found[[*found][-1]].append(line.split("\t")[0])
    assert found["sam"] == ["sample"] and found["completion b"] == ["bash"]
    assert sorted(found["sample --layout "]) == ["columns", "long", "values"]
    assert found["sample --layout=v"] == ["--layout=values"]
    assert found["inspect plots_"] == found["sample --points plots_"] == ["plots_two.parquet"]


@pytest.mark.slow
@needs("zsh")
def test_zsh_offers(folder: Path) -> None:
    """In an interactive shell, which a pseudo-terminal of zsh's own module runs."""
    (folder / "script").write_text(SCRIPTS["zsh"])
    program = """
zmodload zsh/zpty
zpty shell zsh -f -i
see() { local line; while zpty -r -t shell line; do print -rn -- $line; done; }
zpty -w shell "autoload -Uz compinit; compinit -D -u; source ./script"
sleep 1; see >/dev/null
for line in $'sam\\t' $'sample --layout=v\\t' $'inspect plots_t\\t' $'sample --resu\\t'; do
    zpty -w -n shell "rasteret-beam $line"
    for wait in {1..20}; do sleep 0.05; text+=$(see); done
    print -r -- "$text"; text=
    zpty -w -n shell $'\\x15'
done
zpty -d shell
"""
    done = subprocess.run(["zsh", "-f", "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)
    assert "rasteret-beam sample " in done.stdout, done.stdout + done.stderr
    for offered in ("--layout=values", "plots_two.parquet", "--resume"):
        assert offered in done.stdout, done.stdout
