"""Packaging: everything it says stands in settings.ini."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
config = parser["DEFAULT"]

# One extra for each `<name>_requirements`; dev holds them all, so that every part is tested.
extras = {key.removesuffix("_requirements"): value.split() for key, value in config.items() if key.endswith("_requirements")}
extras["dev"] = sorted({requirement for requirements in extras.values() for requirement in requirements})

setup(
    name=config["lib_name"], version=config["version"], description=config["description"], keywords=config["keywords"],
    author=config["author"], author_email=config["author_email"], license="Apache-2.0",
    long_description=(here / "README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["sarclip", "sarclip.*"]),
    package_data={
        "sarclip": ["*/*.yaml", "models/model_configs/*.json", "explore/assets/*", "explore/assets/vendor/*", "study/templates/*"]
    },
    python_requires=f">={config['min_python']}", install_requires=config["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": config["console_scripts"].split()},
    classifiers=["License :: OSI Approved :: Apache Software License", "Programming Language :: Python :: 3", "Intended Audience :: Science/Research"],
)
