"""`airflow-release report`: what the next release changes, and whether a DAG is in the way; changes nothing.

The answer is one JSON document:

| key | has |
|---|---|
| `format` | 2, the number of this shape |
| `created` | when, ISO 8601 in UTC |
| `from`, `to` | `airflow_version`, `python_version`, `image` of either release |
| `verdict` | `blocking`, see `dag_check.blocking`; `notes`, each {"kind", "text"} |
| `fix` | what `fix.patch` beside the document does, see `fix.Fix` |
| `dags` | one entry for each file, see `dag_check.compare` |
| `settings` | see `settings_in_use.compare`; names, never values |
| `packages` | see `packages.compare` |
| `compose` | see `compose_file.compare` |
| `seconds` | how long each part took |
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_release.core.errors import ReleaseError
from airflow_release.core.files import replace_file, replacing
from airflow_release.core.host import Host
from airflow_release.report import compose_file, dag_check, fix, packages, settings_in_use
from airflow_release.report.release_folder import ReleaseFolder

FORMAT = 2
FILES_SHOWN = 15
"""How many files of one cause a terminal shows."""

Json = dict[str, Any]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `airflow-release`."""
    parser = subparsers.add_parser(
        "report", help="say what the next release changes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--output", type=Path, help="where the JSON document goes (default: releases/next/report.json)"
    )
    parser.add_argument(
        "--compose-address-template",
        metavar="ADDRESS",
        help="where upstream publishes its Compose files, with {version} in it",
    )
    parser.add_argument(
        "--acknowledge",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="a DAG, by dag_id or file, that may break",
    )
    parser.set_defaults(run=run)


def run(host: Host, arguments: argparse.Namespace) -> int:
    """Write the document and the patch, and print the verdict.

    Raises:
        ReleaseError: there is no report to make; nothing is left behind.
    """
    output: Path = arguments.output or host.next / "report.json"
    report, patch = collect(
        ReleaseFolder(host, host.directory),
        ReleaseFolder(host, host.next),
        arguments.compose_address_template,
        arguments.acknowledge,
    )
    write(output, report, patch)
    print("\n".join(verdict_lines(report)))
    return 0


def collect(
    old: ReleaseFolder, new: ReleaseFolder, address_template: str | None, acknowledged: Sequence[str]
) -> tuple[Json, bytes]:
    """Make the document and the patch. Raises ReleaseError."""
    seconds: dict[str, float] = {}
    # What is missing is told before minutes are spent.
    if address_template:
        compose_file.address(address_template, "")
    images, tree = [release.airflow_image for release in (old, new)], old.live_tree()
    with _timed(seconds, "images"):
        facts = [release.facts() for release in (old, new)]
    with _timed(seconds, "dags"):
        gates = [release.parse(tree) for release in (old, new)]
        files = dag_check.compare(gates[0], gates[1], acknowledged)
    with _timed(seconds, "fix"):
        moved = facts[0].get("moved_names", {})
        offered = fix.make(old, new, tree, (gates[0], gates[1]), files, moved)
    with _timed(seconds, "settings"):
        settings = settings_in_use.compare(new.airflow_settings(), *facts)
    with _timed(seconds, "compose"):
        versions = [str(each["airflow_version"]) for each in facts]
        compose = compose_file.compare(address_template, *versions)
    report: Json = {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        **{
            name: {
                "airflow_version": facts[index]["airflow_version"],
                "python_version": facts[index]["python_version"],
                "image": images[index],
            }
            for index, name in enumerate(("from", "to"))
        },
        "fix": offered.document(),
        "dags": files,
        "settings": settings,
        "packages": packages.compare(facts[0]["packages"], facts[1]["packages"]),
        "compose": compose,
        "seconds": seconds,
    }
    notes = list(_notes(report))
    notes += [("requirements", text) for text in dag_check.requirements(gates[1])]
    notes += [
        ("acknowledged", f"{name} was acknowledged, and nothing of that name breaks.")
        for name in dag_check.unused(acknowledged, files)
    ]
    report["verdict"] = {
        "blocking": dag_check.blocking(files),
        "notes": [{"kind": kind, "text": text} for kind, text in notes],
    }
    return report, offered.patch


def _notes(report: Json) -> Iterator[tuple[str, str]]:
    """Yield what somebody should know who need not stop for it."""
    words = {
        "acknowledged": "breaks, as acknowledged",
        "was broken": "is broken on the running Airflow, too",
        "repaired": "imports again on the new Airflow",
    }
    for file in report["dags"]:
        if text := words.get(file["state"]):
            yield "dag", f"{file['path']} {text}."
    if warning := [file for file in report["dags"] if file["warnings"]]:
        yield "dag", f"{_count(len(warning), 'file')} of DAGs import with warnings."
    if quiets := report["fix"]["quiets"]:
        yield "fix", f"fix.patch removes the warnings of {_count(len(quiets), 'file')} of DAGs."
    if report["fix"]["note"]:
        yield "fix", report["fix"]["note"]
    for change in report["settings"]:
        yield "setting", _setting_text(change)
    old, new = (report[name]["python_version"].rpartition(".")[0] for name in ("from", "to"))
    if old != new:
        yield "python", f"Python changes from {old} to {new}, also for the team's own packages."
    for change in report["packages"]:
        if change["provider"] and change["change"] in ("removed", "downgraded"):
            yield "package", f"{change['name']} {change['from']} is {change['change']}."
    if report["compose"]["note"].startswith("Not compared"):
        yield "compose", f"Upstream's Compose files: {report['compose']['note']}"


def _setting_text(change: Json) -> str:
    variable, since = change["variable"], change["since"]
    return {
        "removed": f"{variable} no longer has an effect: the new Airflow has no {change['name']}.",
        "provider": f"{variable} moved to a provider, and no provider of the new image has {change['name']}.",
        "renamed": f"{variable} was renamed to {change['replacement']} in {since}; the old name works.",
        "deprecated": f"{variable} is deprecated since {since}. {change['reason']}".strip(),
    }[change["change"]]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def verdict_lines(report: Json) -> Iterator[str]:
    """Yield the verdict as lines for a terminal."""
    verdict = report["verdict"]
    yield f"Airflow {report['from']['airflow_version']} -> {report['to']['airflow_version']}"
    for cause in verdict["blocking"]:
        yield f"stops: {_count(cause['count'], 'file')}: {cause['summary']}"
        if cause["hint"]:
            yield f"       {cause['hint']}"
        for file in cause["files"][:FILES_SHOWN]:
            dags = f" ({', '.join(file['dag_ids'])})" if file["dag_ids"] else ""
            yield f"       - {file['path']}{dags}"
        if (more := cause["count"] - FILES_SHOWN) > 0:
            yield f"       and {more} more in the report"
    for note in verdict["notes"]:
        yield f"note:  {note['text']}"
    total = sum(cause["count"] for cause in verdict["blocking"])
    if mends := report["fix"]["mends"]:
        yield f"fix.patch repairs {len(mends)} of {_count(total, 'file')}: git apply fix.patch"
    yield f"{_count(total, 'DAG file')} in the way of the upgrade."


def write(path: Path, report: Json, patch: bytes) -> None:
    """Put the document and the patch beside it in place, for root alone, each whole or not at all.

    An empty patch is written, too: that of an earlier report would no longer be right.

    Raises:
        ReleaseError: they cannot be written.
    """
    try:
        with replacing(path.with_name("fix.patch")) as file:
            file.write(patch)
        replace_file(path, json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise ReleaseError(f"{error.filename or path} cannot be written: {error.strerror}") from error


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 3)
