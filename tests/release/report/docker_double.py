#!/usr/bin/env python3
"""Stands in for the program `docker`: an image is a virtual environment with that image's Airflow.

It knows the commands that a report needs and fails on any other. `run` keeps the real client's order of
arguments: options, service, command. What it ran stands in DOCKER_DOUBLE_LOG; it first waits
DOCKER_DOUBLE_DELAY seconds.
"""

import json
import os
import sys
import time
from pathlib import Path

CACHE, GATE = Path(os.environ["DOCKER_DOUBLE_ENVIRONMENTS"]), os.environ["DOCKER_DOUBLE_GATE"]
RUN_OPTIONS = {"--rm": 0, "--no-deps": 0, "--no-TTY": 0, "--name": 1}

arguments = sys.argv[1:]
with open(os.environ["DOCKER_DOUBLE_LOG"], "a") as log:
    print(json.dumps([argument if len(argument) < 500 else "…" for argument in arguments]), file=log)
if arguments[:2] == ["rm", "--force"] and len(arguments) == 3:
    sys.exit(0)
if arguments[:2] != ["compose", "--project-directory"]:
    sys.exit(f"docker: unknown command: {arguments}")
folder, command = Path(arguments[2]), arguments[3:]
if command == ["config", "--format", "json"]:
    print((folder / "project.json").read_text())
    sys.exit(0)
if command.pop(0) != "run":
    sys.exit(f"docker compose: unknown command: {arguments}")
options, mounted = set(), [str(folder).partition("/releases/")[0] + "/trees"]
while command[0].startswith("--"):
    if command[0].startswith("--volume="):
        source, target, mode = command.pop(0).partition("=")[2].split(":")
        assert (source, mode) == (target, "ro")
        mounted.append(source)
        continue
    options.add(option := command.pop(0))
    del command[: RUN_OPTIONS[option]]
if command.pop(0) != "gate" or options != set(RUN_OPTIONS):
    sys.exit(f"docker compose run: not as expected: {arguments}")
environment = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines() if "=" in line)
version = environment["AIRFLOW_IMAGE"].rpartition(":")[2].partition("-")[0]
python = CACHE / f"airflow-{version}/bin/python"
if not python.exists():
    sys.stderr.write(f"Error response from daemon: No such image: {environment['AIRFLOW_IMAGE']}\n")
    sys.exit(1)
assert command.pop(0) == "python3"
for path in (Path(argument) for argument in command[1:] if argument.startswith("/")):
    if not any(Path(place) in path.parents for place in mounted):
        sys.exit(f"gate: no such file or directory: {path}")
if command[0] == "/usr/local/bin/gate-check":
    command[0] = GATE
time.sleep(float(os.environ.get("DOCKER_DOUBLE_DELAY", "0")))
home = f"{folder}/home"
os.execve(
    python,
    [str(python), *command],
    {"PATH": "/usr/bin:/bin", "HOME": home, "AIRFLOW_HOME": f"{home}/airflow"},
)
