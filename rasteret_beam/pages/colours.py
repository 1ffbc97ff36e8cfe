"""Colours: a ramp of even steps of lightness, and colours that the colour-blind can tell apart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

STEPS = 32
"""Colours of the ramp, each a class of the style sheet: ``r0`` to ``r31``."""

LIGHT_RAMP = (0.27, 0.83)
DARK_RAMP = (0.43, 0.94)
"""Lightness of the ends of the ramp: both stand out from the ground of a light and of a dark page."""

HUES = (305.0, 95.0)
"""From purple over blue and green to yellow, in degrees."""

CHROMA = 0.135

KINDS = ("#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9", "#ff7744", "#ff88bb")
"""Colours of kinds, such as reasons, after Okabe and Ito (2008), without black and yellow: classes ``k0`` to ``k7``."""

_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.291485548]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ]
)
"""From Oklab to linear sRGB: https://bottosson.github.io/posts/oklab/."""


def ramp(lightness: tuple[float, float], steps: int = STEPS) -> list[str]:
    """Colours whose lightness (of Oklab) goes evenly from one value to another, as ``#rrggbb``."""
    part = np.linspace(0.0, 1.0, steps)
    light = lightness[0] + part * (lightness[1] - lightness[0])
    hue = np.radians(HUES[0] + part * (HUES[1] - HUES[0]))
    chroma = np.full(steps, CHROMA)
    rgb = _rgb(light, chroma, hue)
    for _ in range(60):  # less chroma where sRGB has no such colour
        outside = ((rgb < 0) | (rgb > 1)).any(axis=1)
        chroma = np.where(outside, chroma * 0.96, chroma)
        rgb = _rgb(light, chroma, hue)
    return ["#" + "".join(f"{round(255 * part):02x}" for part in _encoded(np.clip(each, 0, 1))) for each in rgb]


def _rgb(light: Floats, chroma: Floats, hue: Floats) -> Floats:
    """Linear sRGB [n, 3]."""
    lab = np.stack([light, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    return np.asarray((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T)


def _encoded(linear: Floats) -> Floats:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, of WCAG 2.1."""
    part = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, of WCAG 2.1: 1 to 21."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def steps_of(values: Floats, low: float, high: float) -> NDArray[np.int64]:
    """The step of the ramp for each value between two others; -1 for NaN."""
    half = high / 2 - low / 2
    with np.errstate(invalid="ignore", over="ignore"):
        part = (values / 2 - low / 2) / half if half > 0 else np.where(np.isnan(values), np.nan, 0.5)
        found = np.clip(np.floor(np.nan_to_num(part, nan=-1.0, posinf=1.0, neginf=0.0) * STEPS), -1, STEPS - 1)
    return np.where(np.isnan(values), -1, np.maximum(found, 0)).astype(np.int64)
