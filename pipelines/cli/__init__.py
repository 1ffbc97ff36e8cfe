"""Modules that the commands share."""

import rasteret_beam.transforms.runtime.beam_import  # noqa: F401  (before anything else imports Beam)
