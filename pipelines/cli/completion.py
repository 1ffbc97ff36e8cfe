"""Print the completion script of a shell: what it offers is in the script, so that no Python runs while a user types.

The flags come from ``completion.json``, which ``make templates`` makes of the parsers of the commands: these import
Beam, and this module nothing but the standard library.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.cli.subcommands import COMMAND, SUBCOMMANDS, error_line

FLAGS = Path(__file__).with_name("completion.json")
SHELLS = ("bash", "zsh", "fish")
COMMANDS = {
    **{name: subcommand.summary for name, subcommand in SUBCOMMANDS.items()},
    "completion": "print the completion script of a shell",
    "help": "show the help of a command",
}
OPTIONS = {"--help": "show the help", "--version": "show the version"}

HELP = f"""\
usage: {COMMAND} completion {{bash,zsh,fish}}

Print the completion script of a shell. It completes commands, flags, their choices and paths.

bash, once, with bash-completion installed:
  mkdir -p ~/.local/share/bash-completion/completions
  {COMMAND} completion bash > ~/.local/share/bash-completion/completions/{COMMAND}
bash without it, in ~/.bashrc:
  eval "$({COMMAND} completion bash)"
zsh, in ~/.zshrc, after compinit:
  eval "$({COMMAND} completion zsh)"
fish, once:
  {COMMAND} completion fish > ~/.config/fish/completions/{COMMAND}.fish

Then open a new shell.
"""


class Flag(NamedTuple):
    """A flag of a command, and what may follow it.

    Attributes
    ----------
    name : str
        With its dashes; without them for an argument that is a path.
    help : str
    takes : str
        ``"nothing"``, ``"switch"`` (true or false may follow), ``"path"``, ``"value"`` or ``"choice"``.
    choices : tuple of str
    """

    name: str
    help: str
    takes: str
    choices: tuple[str, ...] = ()

    @property
    def words(self) -> Sequence[str]:
        """What may follow the flag."""
        return ("true", "false") if self.takes == "switch" else self.choices


def flags() -> dict[str, list[Flag]]:
    """The flags of each command."""
    stored: dict[str, list[dict[str, Any]]] = json.loads(FLAGS.read_text(encoding="utf-8"))
    return {command: [Flag(**flag) for flag in stored[command]] for command in SUBCOMMANDS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["-h"], ["--help"]):
        sys.stdout.write(HELP)
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        given = f"{' '.join(words)!r} is not a shell that is known here" if words else "the shell is missing"
        print(error_line(f"{given}; give one of {', '.join(SHELLS)}"), file=sys.stderr)
        return 2
    sys.stdout.write({"bash": bash, "zsh": zsh, "fish": fish}[words[0]](flags()))
    return 0


def bash(known: dict[str, list[Flag]]) -> str:
    """The script for bash 3.2 and later, which splits words at ``=``."""
    cases = "\n".join(_bash_case(command, of) for command, of in known.items())
    return f"""\
# Completion of {COMMAND} for bash.
_rasteret_beam_add() {{
    local line
    while IFS= read -r line; do COMPREPLY+=("$line"); done
}}

_rasteret_beam_words() {{ _rasteret_beam_add < <(compgen -W "$1" -- "$2"); }}

_rasteret_beam_paths() {{
    compopt -o filenames 2>/dev/null
    _rasteret_beam_add < <(compgen -f -- "$1")
}}

_rasteret_beam() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}}
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _rasteret_beam_words "{" ".join([*COMMANDS, *OPTIONS])}" "$current"
        return
    fi
    local equals=""
    if [[ $current == "=" ]]; then
        current="" equals="="
    elif [[ $flag == "=" ]]; then
        flag=${{COMP_WORDS[COMP_CWORD - 2]}} equals="="
    fi
    case ${{COMP_WORDS[1]}} in
        completion) _rasteret_beam_words "{" ".join(SHELLS)}" "$current" ;;
        help) _rasteret_beam_words "{" ".join(COMMANDS)}" "$current" ;;
{cases}
    esac
}}

complete -F _rasteret_beam {COMMAND}
"""


def _bash_case(command: str, known: list[Flag]) -> str:
    """What a command offers: values after a flag that has them, else its flags, or paths if it takes these."""
    flags_of = [flag for flag in known if flag.name.startswith("-")]
    offered = f'_rasteret_beam_words "{" ".join(flag.name for flag in flags_of)}" "$current"'
    if len(flags_of) < len(known):
        offered = f'if [[ $current == -* ]]; then {offered}; else _rasteret_beam_paths "$current"; fi'
    by_words: dict[str, list[str]] = {}
    for flag in flags_of:
        by_words.setdefault(" ".join(flag.words), []).append(flag.name)
    lines = [f'{"|".join(of)}) _rasteret_beam_words "{words}" "$current" ;;' for words, of in by_words.items() if words]
    paths = [flag.name for flag in flags_of if flag.takes == "path"]
    lines += [f'{"|".join(paths)}) _rasteret_beam_paths "$current" ;;'] if paths else []
    inner = "\n".join(f"                {line}" for line in lines)
    return f"""\
        {command})
            case $flag in
{inner}
            esac
            case $flag$equals in
                *=|{"|".join(flag.name for flag in flags_of if flag.takes not in ("nothing", "switch"))}) ;;
                *) {offered} ;;
            esac
            ;;"""


def zsh(known: dict[str, list[Flag]]) -> str:
    """The script for zsh, to be sourced after ``compinit`` or put into a folder of ``fpath``."""
    cases = "\n".join(
        f"        {command})\n            _arguments \\\n"
        + " \\\n".join(f"                {_quoted(_zsh_flag(flag))}" for flag in of)
        + "\n            ;;"
        for command, of in known.items()
    )
    described = " ".join(_quoted(f"{name}:{text}") for name, text in COMMANDS.items())
    return f"""\
#compdef {COMMAND}
# Completion of {COMMAND} for zsh.
_rasteret_beam() {{
    local -a commands
    commands=({described})
    if ((CURRENT == 2)); then
        _describe -t commands command commands
        _arguments {" ".join(_quoted(f"{name}[{text}]") for name, text in OPTIONS.items())}
        return
    fi
    ((CURRENT--))
    shift words
    case $words[1] in
        completion) _values shell {" ".join(SHELLS)} ;;
        help) _describe -t commands command commands ;;
{cases}
    esac
}}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _rasteret_beam "$@"
else
    compdef _rasteret_beam {COMMAND}
fi
"""


def _zsh_flag(flag: Flag) -> str:
    """A flag as ``_arguments`` has it."""
    if not flag.name.startswith("-"):
        return f"1:{flag.name}:_files"
    text = flag.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    after = {
        "path": ":path:_files",
        "value": ":value:",
        "choice": f":value:({' '.join(flag.choices)})",
    }
    if flag.takes == "nothing":
        return f"{flag.name}[{text}]"
    if flag.takes == "switch":
        return f"{flag.name}=-[{text}]::value:(true false)"
    return f"*{flag.name}=[{text}]{after[flag.takes]}"


def fish(known: dict[str, list[Flag]]) -> str:
    """The script for fish."""
    lines = [
        f"complete -c {COMMAND} -n __rasteret_beam_first -a {name} -d {_quoted(text, fish=True)}"
        for name, text in COMMANDS.items()
    ]
    lines += [
        f"complete -c {COMMAND} -n __rasteret_beam_first -l {name[2:]} -d {_quoted(text, fish=True)}"
        for name, text in OPTIONS.items()
    ]
    lines += [f"complete -c {COMMAND} -n '__rasteret_beam_is completion' -a '{' '.join(SHELLS)}'"]
    lines += [f"complete -c {COMMAND} -n '__rasteret_beam_is help' -a '{' '.join(COMMANDS)}'"]
    lines += [_fish_flag(command, flag) for command, of in known.items() for flag in of]
    text = "\n".join(lines)
    return f"""\
# Completion of {COMMAND} for fish.
function __rasteret_beam_first
    test (count (commandline -opc)) -eq 1
end

function __rasteret_beam_is
    set -l words (commandline -opc)
    test (count $words) -gt 1; and test $words[2] = $argv[1]
end

complete -c {COMMAND} -f
{text}
"""


def _fish_flag(command: str, flag: Flag) -> str:
    start = f"complete -c {COMMAND} -n '__rasteret_beam_is {command}'"
    if not flag.name.startswith("-"):
        return f"{start} -F"
    after = {"path": " -r -F", "value": " -x", "choice": f" -x -a '{' '.join(flag.choices)}'"}
    return f"{start} -l {flag.name[2:]} -d {_quoted(flag.help, fish=True)}{after.get(flag.takes, '')}"


def _quoted(text: str, fish: bool = False) -> str:
    """A text in single quotes, in which fish has a backslash for them."""
    return "'" + (text.replace("\\", "\\\\").replace("'", "\\'") if fish else text.replace("'", "'\\''")) + "'"
