"""Lock what the templates' image installs: ``make lock``, with Python 3.11 on Linux x86-64, as in the image.

Writes ``requirements.txt`` from what ``setup.py`` asks for, with its extra ``gcp``: every package that
pip would install into an empty environment today, with its version and the digest of its file.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PYTHON = "3.11"
PLATFORM = "x86_64"
HEADER = f"""\
# Everything that the templates' image installs, from setup.py and its extra gcp, by digest.
# For Python {PYTHON} on Linux x86-64. Made by `make lock`; not to be edited by hand.
"""


def resolved(project: Path) -> dict[str, Any]:
    """pip's report of what it would install for the project."""
    asked = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-", f"{project}[gcp]"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *asked], stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def lock_text(report: dict[str, Any]) -> str:
    """The lock of a report: the project itself left out, in name order.

    Raises
    ------
    SystemExit
        It is for another Python or machine than the image's.
    """
    found = report["environment"]
    place = found["python_version"], found["platform_machine"], found["sys_platform"]
    if place != (PYTHON, PLATFORM, "linux"):
        raise SystemExit(f"the image has Python {PYTHON} on linux {PLATFORM}, but this is {' '.join(place)}")
    lines = [
        f"{package['metadata']['name'].lower()}=={package['metadata']['version']} \\\n"
        f"    --hash=sha256:{package['download_info']['archive_info']['hashes']['sha256']}\n"
        for package in report["install"]
        if not package["is_direct"]
    ]
    return HEADER + "".join(sorted(lines))


def main() -> None:
    (FOLDER / "requirements.txt").write_text(lock_text(resolved(FOLDER.parent)))


if __name__ == "__main__":
    main()
