"""The PTransforms; the only package that imports Apache Beam. :mod:`rasteret_beam` lists the public ones."""

import rasteret_beam.transforms.runtime.beam_import  # noqa: F401  (first: it imports Beam without a warning)
