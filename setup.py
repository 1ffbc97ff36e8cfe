"""Packaging of rasteret_beam; Dataflow takes this file with ``--setup_file``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "rasteret_beam" / "__init__.py").read_text())[1]

DEMO = ["matplotlib>=3.8"]
TABLES = ["pandas>=2.2", "geopandas>=1.0", "polars>=1.30", "duckdb>=1.5", "sedonadb>=0.5"]
"""The libraries whose tables the tests hand over as points; the package needs none of them."""

GCP = ["apache-beam[gcp]>=2.77"]
AWS = ["apache-beam[aws]>=2.77"]

TEST = [
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "pytest-cov>=6.0",
    "hypothesis>=6.100",
    "moto[server]>=5.0",
    "boto3>=1.34",
    *DEMO,
    *TABLES,
    *GCP,
    *AWS,
]

BUILD = ["setuptools>=77", "wheel>=0.43"]
"""What makes the sdist and the wheel; as in pyproject.toml."""

setup(
    name="rasteret-beam",
    version=VERSION,
    description="Raster point sampling on cloud-optimised GeoTIFF collections as Apache Beam transforms",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["rasteret_beam", "rasteret_beam.*", "pipelines", "pipelines.*"]),
    package_data={"rasteret_beam": ["py.typed", "collection/catalogue.json"]},
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
        "demo": DEMO,
        "test": TEST,
        "bench": ['rasteret>=0.4.1; python_version >= "3.12"'],
        "dev": [*TEST, *BUILD, "ruff>=0.8", "mypy>=1.13"],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: GIS",
        "Typing :: Typed",
    ],
)
