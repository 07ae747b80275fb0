"""What Prometheus is told, in its text format."""

import threading
from collections import Counter


class Metrics:
    """The counters of one filter."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._open = 0

    def opened(self, change: int) -> None:
        """Count a connection that begins (1) or ends (-1)."""
        with self._lock:
            self._open += change

    def passed(self, operation: str, status: int) -> None:
        """Count an answer of Docker's."""
        with self._lock:
            self._requests[operation, f"{status // 100}xx"] += 1

    def refused(self, field: str) -> None:
        """Count a refusal. Names that a client invented are counted together."""
        with self._lock:
            self._refusals[_known(field)] += 1

    def page(self) -> bytes:
        """Return the text exposition."""
        with self._lock:
            lines = [
                "# HELP docker_policy_requests_total Requests that reached Docker, by operation and answer",
                "# TYPE docker_policy_requests_total counter",
                *(
                    f'docker_policy_requests_total{{operation="{operation}",answer="{answer}"}} {count}'
                    for (operation, answer), count in sorted(self._requests.items())
                ),
                "# HELP docker_policy_refusals_total Requests that were refused, by field",
                "# TYPE docker_policy_refusals_total counter",
                *(
                    f'docker_policy_refusals_total{{field="{field}"}} {count}'
                    for field, count in sorted(self._refusals.items())
                ),
                "# HELP docker_policy_connections Connections that are open",
                "# TYPE docker_policy_connections gauge",
                f"docker_policy_connections {self._open}",
            ]
        return "\n".join([*lines, ""]).encode()


_KNOWN = {
    *("path", "query", "body", "headers", "request", "upgrade", "API version", "name", "container", "image"),
    *("content-type", "content-length", "transfer-encoding", "fromImage", "tag", "filters", "serveraddress"),
    *(
        "X-Registry-Auth",
        "Image",
        "Labels",
        "Volumes",
        "User",
        "WorkingDir",
        "NetworkingConfig",
        "MacAddress",
    ),
    *(
        f"HostConfig.{name}"
        for name in (
            *("Privileged", "Binds", "Mounts", "Devices", "DeviceCgroupRules", "DeviceRequests", "CapAdd"),
            *("SecurityOpt", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode", "NetworkMode"),
            *("Memory", "ShmSize", "CpuShares", "LogConfig", "PortBindings", "ExtraHosts", "Dns", "Ulimits"),
            *("VolumesFrom", "RestartPolicy", "Sysctls", "Runtime", "CgroupParent", "Tmpfs"),
        )
    ),
}


def _known(field: str) -> str:
    """Return the field that a path such as `HostConfig.Mounts[0].Source` is about."""
    first, *others = field.split("[")[0].split(".")
    name = ".".join([first, *others[:1]])
    return next((each for each in (name, first) if each in _KNOWN), "other")
