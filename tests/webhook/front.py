"""A real HAProxy with the platform's own configuration, in front of servers of this machine."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import yaml

from tests.endpoints import ENDPOINTS
from tests.webhook.network import free_port

ROOT = Path(__file__).resolve().parents[2]
HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
TEMPLATES = ROOT / "templates/srv/airflow/haproxy"
PLAIN = {"haproxy_certificate": "", "haproxy_hostnames": {}, "ansible_managed": "a test"}


def configuration(
    endpoints: list[dict[str, Any]], folder: Path, seconds: Mapping[str, float], **given: object
) -> str:
    """Return haproxy.cfg for these endpoints; `seconds` replaces the times that stand after these words.

    What is `given` are the template's variables, where another value than plain HTTP's is wanted.
    """
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)
    environment.filters["comment"] = lambda text, *_: f"# {text}"
    variables = yaml.safe_load((ROOT / "roles/haproxy/vars/main.yml").read_text())
    for name in ("maintenance.html", "haproxy.cfg"):
        template = environment.from_string((TEMPLATES / f"{name}.j2").read_text())
        values = {**variables, **PLAIN, **given, "haproxy_endpoints": endpoints}
        (folder / name).write_text(template.render(values))
    text = (folder / "haproxy.cfg").read_text().replace("/usr/local/etc/haproxy", str(folder))
    for port in (8404, 9999):
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    for name, value in seconds.items():
        text, count = re.subn(rf"(?<=\b{name} )\d+[sm]", f"{value * 1000:.0f}ms", text)
        assert count, f"the template has no {name}"
    return text


@contextmanager
def haproxy(
    servers: Mapping[str, int],
    folder: Path,
    seconds: Mapping[str, float] | None = None,
    endpoints: Sequence[dict[str, Any]] = ENDPOINTS,
) -> Iterator[dict[str, int]]:
    """Run HAProxy before the servers at these ports, by endpoint; yield the port of each endpoint."""
    folder.mkdir(exist_ok=True)
    used = [
        {**endpoint, "port": free_port(), "service": f"127.0.0.1:{servers[endpoint['name']]}", "standby": ""}
        for endpoint in endpoints
        if endpoint["name"] in servers
    ]
    (folder / "haproxy.cfg").write_text(configuration(used, folder, seconds or {}))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([HAPROXY, "-f", folder / "haproxy.cfg"], stdout=log, stderr=log)
    try:
        yield {endpoint["name"]: endpoint["port"] for endpoint in used}
    finally:
        process.kill()
        process.wait()
