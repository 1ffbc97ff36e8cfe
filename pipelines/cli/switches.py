"""Values of switches."""

import argparse


def truth(text: str) -> bool:
    """``true`` or ``false``, as templates write them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
