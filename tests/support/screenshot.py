"""A picture of the upper part of a page, taken by Chromium:

python -m tests.support.screenshot PAGE.html PICTURE.png
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1160, 1420
COLOURS = 96


def take(page: Path, picture: Path) -> None:
    """Write the picture, with few colours."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir={folder}/profile".split()
        flags += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={folder}/shot.png", page.resolve().as_uri()]
        subprocess.run([chromium, *flags], check=True, capture_output=True, timeout=120)
        drawn = Image.open(f"{folder}/shot.png").convert("RGB")
        few = drawn.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
