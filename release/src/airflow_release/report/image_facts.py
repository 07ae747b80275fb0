"""Says what an Airflow image is made of and which settings it knows. Runs inside the image.

The host hands the text of this file to the image's own Python and reads one JSON document. It stands alone,
and keeps to Python 3.7, which the oldest official images have.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pathlib
import platform
import re
import sys
from typing import Any


def environment_name(section: str, option: str) -> str:
    """Return the variable that sets an option, as Airflow itself names it."""
    return f"AIRFLOW__{section.replace('.', '_').upper()}__{option.upper()}"


def packages() -> dict[str, str]:
    """Return the version of every installed package by its normalised name (PEP 503)."""
    try:
        from importlib import metadata
    except ImportError:  # Python 3.7
        import importlib_metadata as metadata  # type: ignore[no-redef, import-not-found, unused-ignore]
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # what a broken uninstall left behind has none
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


def described_options(configuration: Any) -> dict[str, dict[str, Any]]:
    """Return what Airflow says of each option, by the variable that sets it, those of its providers too."""
    if hasattr(configuration, "retrieve_configuration_description"):  # 2.7 and newer
        sections = configuration.retrieve_configuration_description()
    else:
        sections = configuration.default_config_yaml()
    if isinstance(sections, list):  # before 2.6
        sections = {
            section["name"]: {"options": {option["name"]: option for option in section["options"]}}
            for section in sections
        }
    return {
        environment_name(section, option): {
            "name": f"{section}.{option}",
            "deprecated": about.get("version_deprecated"),
            "reason": about.get("deprecation_reason") or "",
        }
        for section, described in sections.items()
        for option, about in described["options"].items()
    }


def of_absent_providers(configuration: Any) -> dict[str, str]:
    """Return the options that 2.7 moved to providers; it keeps their defaults, installed or not."""
    if not hasattr(configuration, "create_provider_config_fallback_defaults"):
        return {}
    parser = configuration.create_provider_config_fallback_defaults()
    return {
        environment_name(section, option): f"{section}.{option}"
        for section in parser.sections()
        for option in parser.options(section)
    }


def renamed_options(conf: Any, known: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the options that have another name now, by the variable that sets the old one."""
    pairs = [(new, old) for new, old in conf.deprecated_options.items()]
    for new, several in getattr(conf, "many_to_one_deprecated_options", {}).items():
        pairs += [(new, old) for old in several]
    for new_section, (old_section, since) in conf.deprecated_sections.items():
        options = [name.partition(".")[2] for name in known.values() if name.startswith(f"{new_section}.")]
        pairs += [((new_section, option), (old_section, option, since)) for option in options]
    return {
        environment_name(old[0], old[1]): {
            "name": f"{old[0]}.{old[1]}",
            "to": f"{new[0]}.{new[1]}",
            "variable": environment_name(*new),
            "since": old[2],
        }
        for new, old in pairs
    }


def moved_names() -> dict[str, str]:
    """Return the names that Airflow moved and still has at their old place, each with its new one.

    Airflow 2.4 and newer keep a table of them in each package, behind modules that exist in name only.
    """
    import airflow

    root = pathlib.Path(airflow.__file__).parent
    for file in sorted(root.rglob("__init__.py")):
        parts = file.parent.relative_to(root.parent).parts
        if "providers" in parts or b"add_deprecated_classes" not in file.read_bytes():
            continue
        try:
            importlib.import_module(".".join(parts))
        except (
            Exception
        ) as error:  # whatever a package without its dependencies raises; its names stay where they are
            print(error, file=sys.stderr)
    found = {}
    for module, loaded in sorted(sys.modules.items()):
        finder = getattr(loaded, "__dict__", {}).get("__getattr__")
        if isinstance(finder, functools.partial) and finder.args and isinstance(finder.args[0], dict):
            found.update({f"{module}.{name}": str(target) for name, target in finder.args[0].items()})
    return {name: target for name, target in found.items() if name.startswith("airflow.")}


def facts() -> dict[str, Any]:
    """Return everything that the report compares."""
    import airflow
    from airflow import configuration

    options = described_options(configuration)
    absent = of_absent_providers(configuration)
    known = {**absent, **{variable: str(about["name"]) for variable, about in options.items()}}
    return {
        "airflow_version": airflow.__version__,
        "python_version": platform.python_version(),
        "packages": packages(),
        "options": options,
        "provider_options": sorted(set(absent) - set(options)),
        "renamed_options": renamed_options(configuration.conf, known),
        "moved_names": moved_names(),
    }


if __name__ == "__main__":
    # Airflow may print while it loads: that goes to standard error, so that the answer stands alone.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(facts(), answer)
    answer.close()
    sys.exit(0)
