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

import host_files
import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from plugins.action.host_files import SPECIFICATION
from tests.plugins.conftest import write
from tests.policy.conftest import ROOT, ansible

SECRET = "the-secret-of-this-test"
PLAIN = "the text that anybody may read"
OWNER = getpass.getuser()
GROUP = str(os.getgid())
EXECUTED = r"EXEC /bin/sh -c"
"""What Ansible says of each round trip: there is one, however many files differ."""


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
        self,
        *options: str,
        loop: list[Any] | None = None,
        environment: dict[str, str] | None = None,
        **arguments: Any,
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
            environment={"ANSIBLE_STDOUT_CALLBACK": "default", **(environment or {})},
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

    first = host.play("--diff", "-vvv")
    assert host.done["written"] == host.paths
    assert host.notified
    assert PLAIN in first.stdout
    assert len(re.findall(EXECUTED, first.stdout)) == 1
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
    assert len(re.findall(EXECUTED, second.stdout)) == 1


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


def test_diff_shows_modes(host: Host) -> None:
    host.play()
    Path(host.files[0]["path"]).chmod(0o600)
    host.play("--check", "--diff")
    [diff] = host.done["diff"]
    assert (diff["before"]["mode"], diff["after"]["mode"]) == ("0600", "0644")
    assert diff["after_header"] == host.files[0]["path"]


def test_new_text_is_another_file_and_a_new_mode_is_not(host: Host) -> None:
    """Who reads a file while it is replaced reads all of the old one."""
    host.play()
    plain = Path(host.files[0]["path"])
    before = plain.stat().st_ino
    plain.chmod(0o600)
    host.play()
    assert plain.stat().st_ino == before
    with plain.open("r+") as file:
        file.write("another")
        file.flush()
        host.play()
        file.seek(0)
        assert file.read().startswith("another")
    assert plain.read_text().startswith("#")


def test_link_is_replaced_by_a_file_and_followed_to_a_directory(host: Host) -> None:
    """A platform's directory may be on another disk. What a link names is not this project's file."""
    elsewhere, plain = host.folder / "elsewhere", Path(host.files[0]["path"])
    elsewhere.mkdir(mode=0o700)
    host.root.symlink_to(elsewhere)
    (elsewhere / "target").write_text("what somebody has")
    plain.symlink_to("target")
    host.play()
    assert host.done["written"] == host.paths
    assert (host.root.is_symlink(), mode(str(elsewhere))) == (True, "0755")
    assert not plain.is_symlink()
    assert (elsewhere / "target").read_text() == "what somebody has"
    host.play()
    assert not host.done["changed"]


def test_directory_in_the_place_of_a_file_is_an_error(host: Host) -> None:
    """Docker makes one if it mounts a file that is not there."""
    plain = Path(host.files[0]["path"])
    plain.mkdir(parents=True)
    for options in (["--check"], []):
        host.play(*options)
        assert host.done["failed"]
        assert host.done["msg"] == f"{plain}: there is a directory; remove it"
    assert list(plain.iterdir()) == []


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_large_table_reaches_the_host(host: Host, pipelining: str) -> None:
    """The files of a host are half a megabyte, more than the arguments of a process may be."""
    host.files = [
        {"path": f"{host.root}/{number}", "content": f"{number} é\n" * 10_000, "mode": "0644"}
        for number in range(10)
    ]
    host.play(environment={"ANSIBLE_PIPELINING": pipelining})
    assert host.done["written"] == [f"{host.root}", f"{host.root}/env", *(one["path"] for one in host.files)]
    for one in host.files:
        assert Path(one["path"]).read_text(encoding="utf-8") == one["content"]


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
    assert os.listdir(host.root / "env") == [".env"]


def test_validated_file_has_its_mode_and_suffix(host: Host) -> None:
    """The program may run as another user, and may ask the name what it reads."""
    seen = host.folder / "seen"
    program = f"sh -c 'stat --format=%a:%n $0 > {seen}' %s"
    host.files[0] |= {"validate": program, "mode": "0640"}
    host.play()
    assert re.fullmatch(rf"640:{host.root}/\.plain.*\.conf\n", seen.read_text())


def test_text_is_in_neither_the_journal_nor_the_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module logs its arguments on the host, and returns them."""
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda module, text, **_: logged.append(text))
    path = "/no/such/folder/token"
    arguments = {
        "directories": [],
        "files": [{"path": path, "owner": OWNER, "group": GROUP, "mode": "0400", "secret": True}],
        "texts": json.dumps({path: SECRET}),
        "look_at": [],
    }
    internal = {"_ansible_check_mode": True, "_ansible_diff": True}
    with patch_module_args({**arguments, **internal}), pytest.raises(SystemExit):
        host_files.main()
    said = capsys.readouterr().out
    assert json.loads(said)["written"] == [path]
    assert path in "".join(logged)
    assert SECRET not in said + "".join(logged)


MISTAKES: dict[str, dict[str, Any]] = {
    "path": {"content": "x"},
    "missing required arguments: mode": {"path": "x", "content": "x", "mode": None},
    "invalid literal": {"path": "x", "content": "x", "mode": "u=rw"},
    "no-such-user": {"path": "x", "content": "x", "owner": "no-such-user"},
    "option templates": {"path": "x"},
    "mutually exclusive": {"path": "x", "src": "a", "content": "b"},
    "owners": {"path": "x", "content": "b", "owners": "root"},
    "validate must contain %s": {"path": "x", "content": "b", "validate": "/usr/bin/true"},
    "no-such-program": {"path": "x", "content": "b", "validate": "/no-such-program %s"},
    "/no/such.j2": {"path": "x", "src": "/no/such.j2"},
    "Destination directory /no/such/folder does not exist": {"path": "/no/such/folder/file", "content": "b"},
}


def test_mistake_is_named(host: Host) -> None:
    host.directories = []
    host.root.mkdir()
    complete = [{"mode": "0644", **entry} for entry in MISTAKES.values()]
    entries = [[{name: value for name, value in entry.items() if value is not None}] for entry in complete]
    host.play(files="{{ item }}", loop=entries, root=str(host.root))
    for says, done in zip(MISTAKES, host.done["results"], strict=True):
        assert done["failed"]
        assert says in done["msg"], done["msg"]
    assert os.listdir(host.root) == []


def test_rendered_text_stays_text(host: Host) -> None:
    """A file that looks like data is written as it stands, and one without a word is empty."""
    texts = ['{"list": [1, "two"]}', "[1, 2]", "yes: 010", "17", "null", "{# #}"]
    for number, text in enumerate(texts):
        (host.folder / f"templates/{number}.j2").write_text(text)
    names = [str(number) for number in range(len(texts))]
    host.play(
        files=[
            {"path": f"{host.root}/{name}", "src": f"{host.folder}/templates/{name}.j2", "mode": "0644"}
            for name in names
        ]
    )
    assert [(host.root / name).read_text() for name in names] == [*texts[:-1], ""]


def test_documented_options_are_those_of_the_action() -> None:
    """The documentation stands in another file, where ansible-doc and ansible-lint look for it."""
    tree = ast.parse((ROOT / "plugins/modules/host_files.py").read_text(encoding="utf-8"))
    texts = {node.targets[0].id: node.value.value for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    documented = yaml.safe_load(texts["DOCUMENTATION"])["options"]

    def shape(options: dict[str, Any], below: str) -> dict[str, Any]:
        return {
            name: (
                option["type"],
                option.get("default"),
                option.get("required"),
                shape(option.get(below, {}), below),
            )
            for name, option in options.items()
        }

    assert shape(documented, "suboptions") == shape(SPECIFICATION, "options")
