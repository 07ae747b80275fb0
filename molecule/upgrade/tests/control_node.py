"""The control node as an operator has it: a copy of this project, whose playbooks run as processes."""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BESIDE_THE_PROJECT = (
    ".git",
    ".venv",
    ".cache",
    ".sandbox",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "reports",
)
HOST = "atd-data03"
SETTINGS = "inventories/local/group_vars/airflow/upgrade.yml"
"""What the scenario's production adds to the inventory of the copy, the pin of the version among it."""
OUTPUT_SHOWN = 12_000


@dataclass(frozen=True)
class Finished:
    """A playbook that has ended."""

    code: int
    output: str

    def succeeded(self) -> Finished:
        """Return itself, if it went well."""
        assert self.code == 0, f"ended with {self.code}:\n{self.output[-OUTPUT_SHOWN:]}"
        return self

    def failed(self, *said: str) -> Finished:
        """Return itself, if it failed and said each of these (regular expressions) in its last words."""
        assert self.code not in (0, None), f"did not fail:\n{self.output[-OUTPUT_SHOWN:]}"
        for pattern in said:
            # Ansible breaks lines and marks them as YAML does.
            words = " ".join(self.output.split())
            assert re.search(pattern, words), f"does not say {pattern!r}:\n{self.output[-OUTPUT_SHOWN:]}"
        return self


class Running:
    """A playbook that runs, in a group of processes of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Follow a process that writes to `log`."""
        self._process = process
        self._log = log

    @property
    def output(self) -> str:
        """Return what it printed up to now."""
        return self._log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Say whether it has."""
        return self._process.poll() is not None

    def wait(self, seconds: float) -> Finished:
        """Wait for its end. One that does not end in time is killed, which fails the test."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {seconds} s:\n{self.output[-OUTPUT_SHOWN:]}") from None
        return Finished(code, self.output)

    def wait_for(
        self, what: str, condition: Callable[[], object], seconds: float, pause: float = 1.0
    ) -> None:
        """Wait for something that it brings about; it may not end before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.ended, f"ended before {what}:\n{self.output[-OUTPUT_SHOWN:]}"
            assert time.monotonic() < deadline, (
                f"after {seconds} s still waiting for {what}:\n{self.output[-OUTPUT_SHOWN:]}"
            )
            time.sleep(pause)

    def kill(self) -> None:
        """End it and all its children as a machine that loses its power does."""
        if not self.ended:
            os.killpg(self._process.pid, signal.SIGKILL)
        # Nobody may take a process that nobody has waited for as one that still runs.
        self._process.wait(10)


class ControlNode:
    """A copy of the project with an inventory that pins the version; the project itself is never edited."""

    def __init__(self, directory: Path) -> None:
        """Make the copy."""
        self.project = directory / "project"
        self._logs = directory
        self._started = 0
        shutil.copytree(ROOT, self.project, symlinks=True, ignore=shutil.ignore_patterns(*BESIDE_THE_PROJECT))
        # What the sandbox wrote down about itself; the inventory looks for it there.
        (self.project / ".sandbox").symlink_to(ROOT / ".sandbox")
        shutil.copy(ROOT / "molecule/upgrade/vars/production.yml", self.project / SETTINGS)

    @property
    def settings(self) -> str:
        """Return the inventory's settings as they stand in their file."""
        return (self.project / SETTINGS).read_text()

    @property
    def pin(self) -> str:
        """Return the version that the inventory pins."""
        found = re.findall(r"^airflow_version: (.*)$", self.settings, re.MULTILINE)
        assert len(found) == 1, found
        return str(found[0])

    def start(self, playbook: str, *arguments: str) -> Running:
        """Start a playbook with arguments as an operator types them."""
        self._started += 1
        log = self._logs / f"{self._started:02}-{Path(playbook).stem}.log"
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--inventory=inventories/local",
            playbook,
            *arguments,
        ]
        # Molecule's own settings of Ansible are not an operator's.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment |= {
            "ANSIBLE_CONFIG": str(self.project / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(process, log)

    def run(self, playbook: str, *arguments: str, seconds: float = 600) -> Finished:
        """Run a playbook to its end."""
        return self.start(playbook, *arguments).wait(seconds)

    def outputs(self) -> dict[str, str]:
        """Return what each playbook has printed up to now, by the name of its log."""
        return {log.stem: log.read_text(errors="replace") for log in sorted(self._logs.glob("*.log"))}

    def page(self, before: str, after: str) -> str:
        """Return what the page of that report says, without its marks, each space a single one."""
        page = self.report(before, after, "html").read_text()
        return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())

    def report(self, before: str, after: str, kind: str = "json") -> Path:
        """Return where the report of an upgrade is that was fetched to this machine."""
        return self.project / "reports" / f"{HOST}-{before}-{after}" / f"report.{kind}"

    @contextmanager
    def edited(self, file: str, old: str, new: str) -> Iterator[None]:
        """Have a file of the copy say something else for a while."""
        path = self.project / file
        text = path.read_text()
        assert old in text, f"{file} does not say {old!r}"
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)


def version(number: str) -> str:
    """Return the argument that names a version."""
    return f"--extra-vars=airflow_version={number}"
