"""What ``providers.yaml`` names: ``rasteret_beam.transforms.yaml.provider.SamplePoints`` and so on."""

from rasteret_beam.errors import listed
from rasteret_beam.transforms.yaml.registry import TRANSFORMS
from rasteret_beam.transforms.yaml.steps import Step


def __getattr__(name: str) -> Step:
    if name in TRANSFORMS:
        return TRANSFORMS[name]
    raise AttributeError(f"rasteret_beam has no transform {name!r} for YAML; it has {listed(TRANSFORMS, 60)}")
