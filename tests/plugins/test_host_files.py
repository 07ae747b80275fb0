"""The action `host_files`, run by ansible-playbook against a folder that stands for a host."""

from __future__ import annotations

import ast
import getpass
import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.action.host_files import SPECIFICATION
from tests.plugins.conftest import write
from tests.policy.conftest import ROOT, ansible

SECRET = "the-secret-of-this-test"
PLAIN = "the text that anybody may read"
OWNER = getpass.getuser()
GROUP = str(os.getgid())


class Host:
    """A folder that stands for a host, its templates beside it, and a play of one task."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.result = folder, folder / "host", folder / "result.json"
        (folder / "templates").mkdir()
        (folder / "templates/plain.conf.j2").write_text("{{ ansible_managed | comment }}\n{{ text }}\n")
        (folder / "templates/secret.env.j2").write_text(f"TOKEN={SECRET}\n")
        self.directories = [
            {"path": f"{self.root}", "mode": "0755"},
            {"path": f"{self.root}/env", "mode": "0700"},
        ]
        self.files: list[dict[str, Any]] = [
            {
                "path": f"{self.root}/plain[1].conf",
                "src": f"{folder}/templates/plain.conf.j2",
                "mode": "0644",
            },
            {
                "path": f"{self.root}/env/.env",
                "src": f"{folder}/templates/secret.env.j2",
                "mode": "0600",
                "owner": str(os.getuid()),
                "secret": True,
            },
            {"path": f"{self.root}/env/token", "content": SECRET, "mode": "0400", "secret": True},
            {"path": f"{self.root}/empty", "content": "", "mode": "0644"},
        ]

    @property
    def paths(self) -> list[str]:
        return [one["path"] for one in [*self.directories, *self.files]]

    def play(
        self, *options: str, loop: list[Any] | None = None, **arguments: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run it; what the task returned is written to `result`, and a line is added to `notified`."""
        task = {
            "name": "Have the files",
            "host_files": {
                "directories": self.directories,
                "files": self.files,
                "owner": OWNER,
                "group": GROUP,
                **arguments,
            },
            "register": "done",
            "notify": "Say so",
            "ignore_errors": True,
            **({} if loop is None else {"loop": loop}),
        }
        notified = f"'once\\n' | written_to('{self.folder}/notified')"
        play = {
            "name": "Play",
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"text": PLAIN},
            "tasks": [task, write("done", f"'{self.result}'", self.folder)],
            "handlers": [{"name": "Say so", "ansible.builtin.assert": {"that": notified, "quiet": True}}],
        }
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        self.result.unlink(missing_ok=True)
        (self.folder / "notified").unlink(missing_ok=True)
        run = ansible(
            "ansible-playbook",
            "--inventory=localhost,",
            *options,
            str(self.folder / "play.yml"),
            environment={"ANSIBLE_STDOUT_CALLBACK": "default"},
        )
        assert self.result.exists(), run.stdout + run.stderr
        assert SECRET not in run.stdout + run.stderr
        return run

    @property
    def done(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.result.read_text())
        return found

    @property
    def notified(self) -> bool:
        return (self.folder / "notified").exists()


def mode(path: str) -> str:
    return f"{stat.S_IMODE(os.stat(path).st_mode):04o}"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_from_a_bare_host_to_a_quiet_second_run(host: Host) -> None:
    """Check mode says all of it and does nothing; the first run does all of it, the second nothing."""
    check = host.play("--check", "--diff")
    assert host.done["changed"]
    assert host.done["written"] == host.paths
    assert host.done["found"] == []
    assert not host.root.exists()
    assert PLAIN in check.stdout

    first = host.play("--diff")
    assert host.done["written"] == host.paths
    assert host.notified
    assert PLAIN in first.stdout
    for entry in [*host.directories, *host.files]:
        assert mode(entry["path"]) == entry["mode"]
    assert Path(host.files[0]["path"]).read_text() == f"#\n# Ansible managed\n#\n{PLAIN}\n"
    assert Path(host.files[1]["path"]).read_text() == f"TOKEN={SECRET}\n"
    assert Path(host.files[2]["path"]).read_text() == SECRET

    second = host.play("-vvv", look_at=[f"{host.root}/env", f"{host.root}/empty", f"{host.root}/none"])
    assert (host.done["changed"], host.done["written"]) == (False, [])
    assert host.done["found"] == [*host.paths, f"{host.root}/env", f"{host.root}/empty"]
    # Of nothing but what was asked for: a checksum of a secret helps whoever guesses it.
    assert host.done["checksums"] == {
        f"{host.root}/env": "",
        f"{host.root}/empty": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    }
    assert host.done["modes"] == {f"{host.root}/env": "0700", f"{host.root}/empty": "0644"}
    assert not host.notified
    # One look, however many files.
    assert len(re.findall(r"EXEC /bin/sh -c", second.stdout)) == 1


def test_what_differs_is_written_and_nothing_else(host: Host) -> None:
    host.play()
    plain, dotenv, token, empty = (Path(one["path"]) for one in host.files)
    plain.chmod(0o600)
    dotenv.write_text("TOKEN=another\n")
    token.unlink()
    (host.root / "env").chmod(0o755)
    before = empty.stat().st_mtime_ns

    check = host.play("--check", "--diff")
    expected = [f"{host.root}/env", str(plain), str(dotenv), str(token)]
    assert host.done["written"] == expected
    assert (mode(str(plain)), token.exists()) == ("0600", False)
    assert "TOKEN" not in check.stdout

    host.play()
    assert host.done["written"] == expected
    assert host.notified
    assert (mode(str(plain)), mode(f"{host.root}/env")) == ("0644", "0700")
    assert (dotenv.read_text(), token.read_text()) == (f"TOKEN={SECRET}\n", SECRET)
    assert empty.stat().st_mtime_ns == before


def test_template_of_the_same_path_is_rendered(host: Host) -> None:
    """So that a table of paths and modes is enough; what is not absolute is below the root."""
    (host.folder / "templates/etc").mkdir()
    (host.folder / "templates/etc/one.conf.j2").write_text("{{ text }}\n")
    (host.folder / "templates/two.conf.j2").write_text("two: {{ text }}\n")
    host.directories = [{"path": "etc", "mode": "0755"}]
    host.files = [{"path": "etc/one.conf", "mode": "0644"}, {"path": "two.conf", "mode": "0600"}]
    host.play(templates=f"{host.folder}/templates", root=str(host.root), look_at=["etc"])
    assert host.done["written"] == [f"{host.root}/{name}" for name in ("etc", "etc/one.conf", "two.conf")]
    assert (host.root / "etc/one.conf").read_text() == f"{PLAIN}\n"
    assert (host.root / "two.conf").read_text() == f"two: {PLAIN}\n"

    host.play(templates=f"{host.folder}/templates", root=str(host.root), look_at=["etc"])
    assert (host.done["written"], host.done["modes"]) == ([], {f"{host.root}/etc": "0755"})


def test_fingerprint_is_of_the_texts(host: Host) -> None:
    """It says what differs from the run before, whether or not that was written already."""
    host.play("--check")
    first = host.done["fingerprint"]
    host.play()
    assert host.done["fingerprint"] == first
    host.files[2]["content"] = f"another {SECRET}"
    host.play("--check")
    assert host.done["fingerprint"] != first


@pytest.mark.parametrize("secret", [False, True])
def test_refused_file_stays_as_it_was(host: Host, secret: bool) -> None:
    """What comes before it is written; what the program said is shown unless it may quote a secret."""
    plain, dotenv, token, _ = (Path(one["path"]) for one in host.files)
    (host.root / "env").mkdir(parents=True)
    dotenv.write_text("TOKEN=another\n")
    host.files[1] |= {"validate": "sh -c 'echo what the program says >&2; exit 1' %s", "secret": secret}
    host.play()
    assert host.done["failed"]
    assert str(plain) in host.done["written"]
    assert host.done["path"] == str(dotenv)
    assert host.done["msg"].startswith(f"{dotenv}: failed to validate")
    assert ("what the program says" in host.done["msg"]) is not secret
    assert dotenv.read_text() == "TOKEN=another\n"
    assert not token.exists()


MISTAKES: dict[str, dict[str, Any]] = {
    "path": {"content": "x"},
    "option templates": {"path": "/x"},
    "mutually exclusive": {"path": "/x", "src": "a", "content": "b"},
    "owners": {"path": "/x", "content": "b", "owners": "root"},
    "/no/such.j2": {"path": "/x", "src": "/no/such.j2"},
    "/no/such/folder": {"path": "/no/such/folder/file", "content": "b"},
}


def test_mistake_is_named(host: Host) -> None:
    host.directories = []
    host.play(files="{{ item }}", loop=[[entry] for entry in MISTAKES.values()])
    for says, done in zip(MISTAKES, host.done["results"], strict=True):
        assert done["failed"]
        assert says in done["msg"], done["msg"]


@pytest.mark.parametrize("text", ['{"list": [1, "two"]}', "[1, 2]", "yes: 010", "17", "null", "{# #}"])
def test_rendered_text_stays_text(host: Host, text: str) -> None:
    """A file that looks like data is written as it stands, and one without a word is empty."""
    source, target = host.folder / "templates/data.j2", host.root / "data"
    source.write_text(text)
    host.play(files=[{"path": str(target), "src": str(source), "mode": "0644"}])
    assert target.read_text() == text.replace("{# #}", "")


def test_documented_options_are_those_of_the_action() -> None:
    """The documentation stands in another file, where ansible-doc and ansible-lint look for it."""
    tree = ast.parse((ROOT / "plugins/modules/host_files.py").read_text(encoding="utf-8"))
    texts = {node.targets[0].id: node.value.value for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    documented = yaml.safe_load(texts["DOCUMENTATION"])["options"]

    def shape(options: dict[str, Any], below: str) -> dict[str, Any]:
        return {
            name: (option["type"], option.get("default"), shape(option.get(below, {}), below))
            for name, option in options.items()
        }

    assert shape(documented, "suboptions") == shape(SPECIFICATION, "options")
