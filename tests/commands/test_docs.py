"""What the docs name is there."""

import re

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_tests_that_a_page_names(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{page} names {file}::{name}"


def test_the_page_of_promises_names_a_test_for_each() -> None:
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert all("`tests/" in row.rsplit("|", 2)[1] for row in rows)
