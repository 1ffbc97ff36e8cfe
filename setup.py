"""Packaging of rasteret_beam; Dataflow takes this file with ``--setup_file``."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "rasteret_beam" / "__init__.py").read_text())[1]

RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")

PLOT = ["matplotlib>=3.8"]
EXPLORE = ["folium>=0.17", "lonboard>=0.10"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29"]
TABLES = ["pandas>=2.2", "geopandas>=1.0", "polars>=1.30", "duckdb>=1.5", "sedonadb>=0.5"]
"""The libraries whose tables the tests hand over as points; the package needs none of them."""

GCP = ["apache-beam[gcp]>=2.77"]
AWS = ["apache-beam[aws]>=2.77"]

PEERS = ["exactextract>=0.2", "rasterstats>=0.20"]
"""What the tests compare zonal statistics with."""

ICEBERG = ["pyiceberg[sql-sqlite]>=0.12"]

VECTOR = ["pyogrio>=0.12"]
STAC = ["pystac>=1.12", "pystac-client>=0.8"]

YAML = ["apache-beam[yaml]>=2.77"]

YAML_TEST = ["jinja2>=3.0", "docstring-parser>=0.15", "jsonschema>=4.0"]
"""What the tests need of YAML, which limits pandas to versions before those that they are run with."""

TEST = [
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "pytest-cov>=6.0",
    "hypothesis>=6.100",
    "moto[server]>=5.0",
    "boto3>=1.34",
    *PEERS,
    *PLOT,
    *EXPLORE,
    *TABLES,
    *STAC,
    *ICEBERG,
    *VECTOR,
    *YAML_TEST,
    "stac-geoparquet>=0.7",
    *GCP,
    *AWS,
]

BUILD = ["setuptools>=77", "wheel>=0.43"]
"""What makes the sdist and the wheel; as in pyproject.toml."""


def long_description() -> str:
    """README.md for the package index, which has no other file of the repository.

    Relative links and pictures get the address of this version on GitHub where ``GITHUB_REPOSITORY`` (OWNER/NAME) is
    set, as it is in the release workflow; otherwise links become plain text, and pictures are left out.
    """
    repository = os.environ.get("GITHUB_REPOSITORY")

    def absolute(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if not repository:
            return "" if picture else text
        host = "https://raw.githubusercontent.com/{}/" if picture else "https://github.com/{}/blob/"
        return f"{picture}[{text}]({host.format(repository)}v{VERSION}/{target})"

    return RELATIVE_LINK.sub(absolute, (HERE / "README.md").read_text())


setup(
    name="rasteret-beam",
    version=VERSION,
    description="Raster point sampling on cloud-optimised GeoTIFF collections as Apache Beam transforms",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["rasteret_beam", "rasteret_beam.*", "pipelines", "pipelines.*"]),
    entry_points={"console_scripts": ["rasteret-beam = pipelines.cli.main:run"]},
    package_data={
        "rasteret_beam": ["py.typed", "collection/catalogue.json", "transforms/yaml/providers.yaml"],
        "pipelines": ["cli/completion.json"],
    },
    install_requires=[
        "apache-beam>=2.77",
        "pyarrow>=19",
        "numpy>=1.26",
        "pyproj>=3.6.1",
        "rasterio>=1.4",
        "shapely>=2.0.3",
        "tifffile>=2024.8.10",
        "obstore>=0.10",
        "imagecodecs>=2024.12.30",
        "isal>=1.7",
    ],
    extras_require={
        "gcp": GCP,
        "aws": AWS,
        "iceberg": ICEBERG,
        "stac": STAC,
        "vector": VECTOR,
        "yaml": YAML,
        "planetary-computer": ["planetary-computer>=1.0"],
        "plot": PLOT,
        "explore": EXPLORE,
        "demo": PLOT,
        "docs": DOCS,
        "test": TEST,
        "bench": ['rasteret>=0.4.1; python_version >= "3.12"', "rasterstats>=0.20"],
        "dev": [*TEST, *BUILD, *DOCS, "ruff>=0.8", "mypy>=1.13"],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: GIS",
        "Typing :: Typed",
    ],
)
