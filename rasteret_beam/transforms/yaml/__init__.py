"""The transforms of this package for Beam YAML; ``providers.yaml`` lists them."""
