"""Quality rules as text: ``SCL not in 0,1,3,8-10``, on the command line and in templates.

This module knows the grammar only; :mod:`rasteret_beam.quality` says what a rule means.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from rasteret_beam.errors import InputError, did_you_mean, listed

GRAMMAR = (
    "a rule is BAND not in 0,1,3,8-10 or BAND in 4-7 or BAND no bits 0-4 or BAND bits 8-9 not in 3 or BAND <= 40 or "
    "BAND >= 5 or preset:NAME; 'and' joins conditions of a band, ';' separates rules, and a rule may end with "
    "'missing pass' or 'missing fail'"
)

LONGEST_RANGE = 65536
"""Values of a range: those of 16 bits."""

RUN = 3
"""From so many neighbouring numbers on, text has a range of them."""

BLANKS = re.compile(r"\s*")
PLAIN = re.compile(r"[^\s\"'<>=!,;]+")
QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
RANGE = re.compile(r"([-+]?[0-9]+)\s*-\s*([-+]?[0-9]+)(?![.0-9eE])")
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.])")
PIECE = re.compile(r"[<>=!]+|,|[-+.\w]+|\S")
SEPARATED = re.compile(rf"((?:{QUOTED.pattern}|[^;\"']|[\"'])*?)(?:;|$)", re.DOTALL)
WHOLE = re.compile(r"[-+]?[0-9]+")

CONDITIONS = ("not", "in", "no", "bits", "bit", "<=", ">=")
MISSING = ("error", "pass", "fail")


def rules_of(text: str) -> list[str]:
    """The rules of a text, which ``;`` separates outside of quotes."""
    return [rule for rule in (found.strip() for found in SEPARATED.findall(text)) if rule]


def arguments_of(text: str) -> dict[str, Any]:
    """What a rule in text says, as arguments of ``Quality``, or of ``Quality.preset`` with its ``name``.

    Raises
    ------
    InputError
        Names the word that does not fit, where it stands, what would fit, and the grammar.
    """
    return _Reader(text).rule()


def text_of(
    band: str,
    exclude: Sequence[float],
    keep: Sequence[float] | None,
    exclude_bits: Sequence[int],
    fields: Sequence[tuple[tuple[int, int], Sequence[int]]],
    minimum: float | None,
    maximum: float | None,
    missing: str,
) -> str:
    """The text of a rule, from which :func:`arguments_of` gives the same arguments; numbers are in order."""
    conditions = [f"not in {_listed(exclude)}"] if exclude else []
    conditions += [f"in {_listed(keep)}"] if keep is not None else []
    conditions += [f"no bits {_listed(exclude_bits)}"] if exclude_bits else []
    for (first, last), values in fields:
        conditions.append(f"bits {first}-{last} not in {_listed(values)}")
    conditions += [f">= {minimum}"] if minimum is not None else []
    conditions += [f"<= {maximum}"] if maximum is not None else []
    end = "" if missing == "error" else f" missing {missing}"
    return f"{_band_text(band)} {' and '.join(conditions)}{end}"


def _band_text(band: str) -> str:
    if PLAIN.fullmatch(band) and not band.lower().startswith("preset:"):
        return band
    return '"' + band.replace('"', '""') + '"'


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) >= RUN else ",".join(str(each) for each in run) for run in _runs(numbers)
    )


def _runs(numbers: Sequence[float]) -> Iterator[list[float]]:
    """Neighbouring whole numbers together."""
    run: list[float] = []
    for each in numbers:
        follows = run and isinstance(each, int) and isinstance(run[-1], int) and each == run[-1] + 1
        if run and (not follows or len(run) == LONGEST_RANGE):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


class _Reader:
    """Reads one rule from left to right."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.found: dict[str, Any] = {}

    def rule(self) -> dict[str, Any]:
        band, quoted = self.name("the name of a band, or preset:NAME")
        if not quoted and band.lower().startswith("preset:"):
            self.found["name"] = band[len("preset:") :] or self.name("the name of a preset")[0]
            if self.takes("band"):
                self.found["band"] = self.name("the name of a band")[0]
        else:
            self.found["band"] = band
            self.condition()
            while self.takes("and"):
                self.condition()
        if self.takes("missing"):
            self.found["missing"] = self.one_of(MISSING)
        if self.rest():
            self.fail(["missing"] if "name" in self.found else ["and", "missing"], "the end of the rule")
        return self.found

    def name(self, what: str) -> tuple[str, bool]:
        """A name, and whether it was in quotes."""
        quoted = self.match(QUOTED)
        if quoted:
            mark = quoted[0][0]
            return quoted[0][1:-1].replace(mark * 2, mark), True
        plain = self.match(PLAIN)
        return (plain[0], False) if plain else self.fail([], what)

    def condition(self) -> None:
        start = self.at
        if self.takes("not"):
            self.needs("in")
            self.keep_found("exclude", self.numbers(), start)
        elif self.takes("in"):
            self.keep_found("keep", self.numbers(), start)
        elif self.takes("no"):
            self.needs("bits", "bit")
            self.keep_found("exclude_bits", self.numbers(), start)
        elif self.takes("bits") or self.takes("bit"):
            bits = self.bits()
            self.needs("not")
            self.needs("in")
            self.found["fields"] = [*self.found.get("fields", []), (bits, self.numbers())]
        else:
            operator = self.match(re.compile("<=|>="))
            if operator is None:
                self.fail(CONDITIONS)
            self.keep_found("maximum" if operator[0] == "<=" else "minimum", self.number(), start)

    def keep_found(self, name: str, value: Any, start: int) -> None:
        if name in self.found:
            self.at = start
            self.fail([], "each kind of condition once")
        self.found[name] = value

    def numbers(self) -> list[float]:
        """Numbers and ranges of whole numbers, with commas between them."""
        found = [*self.some()]
        while self.match(re.compile(",")):
            found += self.some()
        return found

    def some(self) -> Sequence[float]:
        start = self.at
        span = self.match(RANGE)
        if span is None:
            return [self.number()]
        first, last = int(span[1]), int(span[2])
        if not 0 <= last - first < LONGEST_RANGE:
            self.at = start
            self.fail([], f"a range from the smaller to the larger number, of at most {LONGEST_RANGE} values")
        return range(first, last + 1)

    def bits(self) -> tuple[int, int]:
        """First and last bit of a field, or its one bit."""
        span = self.match(RANGE)
        if span:
            return int(span[1]), int(span[2])
        bit = self.match(WHOLE)
        return (int(bit[0]), int(bit[0])) if bit else self.fail([], "the bits of a field, such as 8-9")

    def number(self) -> float:
        number = self.match(NUMBER)
        if number is None:
            self.fail([], "a number")
        return int(number[0]) if WHOLE.fullmatch(number[0]) else float(number[0])

    def takes(self, word: str) -> bool:
        return self.match(re.compile(rf"{word}(?!\w)", re.IGNORECASE)) is not None

    def one_of(self, words: Sequence[str]) -> str:
        return next((word for word in words if self.takes(word)), "") or self.fail(words)

    def needs(self, *words: str) -> None:
        self.one_of(words)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What follows, past blanks, if it is of a pattern."""
        self.rest()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def rest(self) -> str:
        blanks = BLANKS.match(self.text, self.at)
        self.at = blanks.end() if blanks else self.at
        return self.text[self.at :]

    def fail(self, words: Sequence[str], what: str = "") -> NoReturn:
        """Refuse what follows, where one of some words, or something else, would fit."""
        rest = self.rest()
        piece = PIECE.match(rest)
        *others, last = [*(repr(word) for word in words if word != "bit"), *([what] if what else [])]
        expected = f"{listed(others)} or {last}" if others else last
        found = "the rule ends"
        if piece is not None:
            found = f"found {piece[0]!r} at character {self.at + 1}{did_you_mean(piece[0], words)}"
        strict = " (whole numbers < 40 are <= 39)" if rest[:1] in ("<", ">") else ""
        raise InputError(f"quality rule {self.text!r}: expected {expected}, but {found}{strict}; {GRAMMAR}")
