"""An operator who reaches the host as a user whose sudo asks for a password.

Costs about 30 s.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_node import ControlNode
from long_tests import when_asked
from platform_host import Platform

pytestmark = pytest.mark.starts_on("2.5.3")

USER = "oncall"
AS_THE_USER = f"--extra-vars=ansible_user={USER}"


@pytest.fixture(scope="module")
def password(platform: Platform) -> Iterator[str]:
    """Make the user, who may do everything that root may, by a password."""
    password = secrets.token_urlsafe(12)
    for command, *arguments in (
        ["useradd --create-home --shell /bin/bash %s", USER],
        ["echo %s | chpasswd", f"{USER}:{password}"],
        [f"umask 227 && echo %s > /etc/sudoers.d/{USER}", f"{USER} ALL=(ALL:ALL) ALL"],
        ["visudo --check --quiet"],
    ):
        done = platform.host.run(command, *arguments)
        assert done.rc == 0, done.stderr
    yield password
    platform.host.run(f"rm --force /etc/sudoers.d/{USER} && userdel --remove {USER}")


@pytest.fixture
def with_the_password(password: str, tmp_path: Path) -> str:
    """Give the argument by which Ansible reads the password, which is on no command line."""
    file = tmp_path / "password"
    file.write_text(password + "\n")
    file.chmod(0o600)
    return f"--become-password-file={file}"


def test_sudo_asks(platform: Platform, control: ControlNode, password: str) -> None:
    """Without the password nothing is done; so what follows shows something."""
    assert platform.host.run(f"su --login {USER} --command 'sudo --non-interactive true'").rc != 0
    control.run("backup.yml", AS_THE_USER, seconds=120).failed()


def test_playbook_copies_files_and_takes_a_backup(
    platform: Platform, control: ControlNode, with_the_password: str
) -> None:
    """It sends the packages of the host's programs, runs modules as root, and fetches an answer."""
    # So that the package is sent again.
    platform.host.run("rm /usr/local/lib/airflow-release/installed")
    control.run("backup.yml", AS_THE_USER, with_the_password, "--extra-vars=reason=sudo").succeeded()
    [newest, *_] = json.loads(platform.check("airflow-release backup list --json"))
    assert newest["manifest"]["reason"] == "sudo"


@when_asked
def test_every_role_is_content_with_it(control: ControlNode, with_the_password: str) -> None:
    """None of them reaches the host in a way of its own. About 60 s."""
    control.run("site.yml", AS_THE_USER, with_the_password).succeeded()
