"""What a DAG's container may be: the fields of `POST /containers/create` that pass, and what is added.

The list is what DockerOperator and the Docker SDK send. Docker 26 takes fields of HostConfig at top level
where HostConfig is absent, and names in any case: so a new document is built, always with a HostConfig.
"""

from typing import Any

from docker_policy import decode
from docker_policy.errors import NO_SETTING, RefusedError, malformed, printable
from docker_policy.images import Images
from docker_policy.settings import LABELS, LOWEST_MEMORY, MIB, Settings

CPU_PERIOD = 100_000
"""Microseconds. A quota of it, unlike NanoCpus, may be more than the host's processors give."""
LARGEST_SHARES = 262_144
MOST_WORDS = 4096
RESERVED_LABELS = ("com.docker.", "airflow.", "airflow-platform.")
"""What programs tell containers of Compose and of the platform by."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_TEXT = decode.text()
_KERNEL = {"proc", "sys", "dev"}
_SIZES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


class Containers:
    """The rules for creating a container, for one inventory."""

    def __init__(self, settings: Settings, images: Images) -> None:
        """Compile them."""
        self._settings = settings
        words = decode.listing(_TEXT, MOST_WORDS)
        memory = settings.memory_mib * MIB
        host_config = decode.record(
            {
                "NetworkMode": decode.one_of(
                    {"": "bridge", "default": "bridge", "bridge": "bridge", "none": "none"},
                    f"containers of DAGs have the network bridge or none; {NO_SETTING}",
                ),
                "CpuShares": decode.integer(0, LARGEST_SHARES),
                "Memory": self._memory,
                "ShmSize": decode.integer(0, memory, "dag_container_memory_mib"),
                "LogConfig": self._log_config,
                "Mounts": decode.listing(self._mount, 32),
                "Binds": decode.listing(self._bind, 32),
                "AutoRemove": decode.flag,
                "PortBindings": decode.empty(dict),
                "Ulimits": decode.empty(list),
            }
        )
        self._rule = decode.record(
            {
                "Image": lambda value, field: str(images.check(_TEXT(value, field), field)),
                "Cmd": _words(words),
                "Entrypoint": _words(words),
                "Env": words,
                "Tty": decode.flag,
                "User": decode.text(r"[A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+)?", "a user, or a user and a group"),
                "WorkingDir": _working_directory,
                "Hostname": decode.text(r"[A-Za-z0-9.-]{0,63}", "a host name"),
                "Labels": decode.mapping(_label, _TEXT),
                "AttachStdout": decode.flag,
                "AttachStderr": decode.flag,
                "OpenStdin": decode.no,
                "StdinOnce": decode.no,
                "AttachStdin": decode.no,
                "NetworkDisabled": decode.no,
                "ExposedPorts": decode.empty(dict),
                "Volumes": decode.mapping(_place, decode.empty(dict)),
                "HostConfig": host_config,
            },
            required=["Image"],
        )

    def build(self, document: Any) -> dict[str, Any]:
        """Return the document for Docker.

        Raises:
            RefusedError: a field is not allowed, or its value is not.
        """
        built: dict[str, Any] = self._rule(document, "")
        host_config = built.get("HostConfig", {})
        mounts = host_config.get("Mounts", []) + host_config.pop("Binds", [])
        targets = {mount["Target"] for mount in mounts}
        for target in built.pop("Volumes", {}):
            if target not in targets:
                raise RefusedError(
                    "an anonymous volume is refused: name the volume, and list it in dag_container_volumes "
                    "of the inventory",
                    field=f"Volumes.{target}",
                )
        limits = self._settings
        memory = host_config.get("Memory") or limits.memory_mib * MIB
        built["Labels"] = {**built.get("Labels", {}), **LABELS}
        built["HostConfig"] = {
            **host_config,
            "NetworkMode": host_config.get("NetworkMode", "bridge"),
            "Mounts": mounts,
            "Memory": memory,
            "MemorySwap": memory,
            "CpuPeriod": CPU_PERIOD,
            "CpuQuota": limits.cpus * CPU_PERIOD,
            "PidsLimit": limits.pids,
            "LogConfig": host_config.get("LogConfig") or self._log_config({}, ""),
            "SecurityOpt": ["no-new-privileges"] if limits.no_new_privileges else [],
            "Privileged": False,
            "RestartPolicy": {"Name": "no"},
            **({"CgroupParent": limits.cgroup_parent} if limits.cgroup_parent else {}),
        }
        return built

    def name(self, value: Any, field: str) -> str:
        """Accept the name of a container that is not one of the platform's."""
        name = str(decode.text(rf"/?{_NAME}", "letters, digits, _, . and -")(value, field))
        if name.removeprefix("/").startswith(self._settings.reserved_names):
            raise RefusedError(f'"{name}" could be a container of the platform; {NO_SETTING}', field=field)
        return name

    def _memory(self, value: Any, field: str) -> int:
        most = self._settings.memory_mib * MIB
        memory = int(decode.integer(0, most, "dag_container_memory_mib")(value, field))
        return memory and int(decode.integer(LOWEST_MEMORY, most)(memory, field))

    def _mount(self, value: Any, field: str) -> dict[str, Any]:
        if isinstance(value, dict) and value.get("Type") == "bind":
            raise _bind_refused(str(value.get("Source")), field)
        mount: dict[str, Any] = decode.record(
            {
                "Type": decode.one_of({"volume": "volume"}, "DAGs mount named volumes"),
                "Source": self._volume,
                "Target": _target,
                "ReadOnly": decode.flag,
                "VolumeOptions": decode.record({"NoCopy": decode.flag}),
            },
            required=["Type", "Source", "Target"],
        )(value, field)
        return mount

    def _bind(self, value: Any, field: str) -> dict[str, Any]:
        """Accept `volume:/place:rw`, and return the same as a mount."""
        source, *rest = str(_TEXT(value, field)).split(":")
        if not source or source[0] in "/.~":
            raise _bind_refused(source, field)
        if len(rest) not in (1, 2) or (rest[1:] and rest[1] not in ("rw", "ro")):
            raise malformed("a volume, a place and rw or ro are expected", field)
        return {
            "Type": "volume",
            "Source": self._volume(source, field),
            "Target": _target(rest[0], field),
            "ReadOnly": rest[1:] == ["ro"],
        }

    def _volume(self, value: Any, field: str) -> str:
        name = str(_TEXT(value, field))
        if name not in self._settings.volumes:
            raise RefusedError(
                f'DAGs may not mount the volume "{printable(name)}": it is not in dag_container_volumes '
                "of the inventory",
                field=field,
            )
        return name

    def _log_config(self, value: Any, field: str) -> dict[str, Any]:
        """Accept Docker's own log files, and limit them."""
        config = decode.record(
            {
                "Type": decode.one_of({"": "", "json-file": ""}, f"the log is a json-file; {NO_SETTING}"),
                "Config": decode.record({"max-size": self._log_size, "max-file": self._log_files}),
            }
        )(value, field).get("Config", {})
        settings = self._settings
        default = {"max-size": f"{settings.log_max_size_mib}m", "max-file": str(settings.log_max_files)}
        return {"Type": "json-file", "Config": {**default, **config}}

    def _log_size(self, value: Any, field: str) -> str:
        size = str(decode.text(r"[0-9]{1,12}[bkmg]?", "a size such as 10m")(value, field))
        number = size.rstrip("bkmg")
        decode.integer(1, self._settings.log_max_size_mib * MIB)(
            int(number) * _SIZES[size.removeprefix(number)], field
        )
        return size

    def _log_files(self, value: Any, field: str) -> str:
        files = str(decode.text(r"[0-9]{1,3}", "a number")(value, field))
        decode.integer(1, self._settings.log_max_files)(int(files), field)
        return files


def _words(words: decode.Rule) -> decode.Rule:
    """Accept a list of words, and one text as a word, as Docker does."""
    return lambda value, field: words([value] if isinstance(value, str) else value, field)


def _bind_refused(source: str, field: str) -> RefusedError:
    """Return the refusal of a host's directory.

    DockerOperator looks for the path in the message: where it finds its own temporary directory, it starts
    the container without one.
    """
    return RefusedError(
        f'DAGs may not mount "{printable(source)}" of the host; use a volume that dag_container_volumes '
        "of the inventory lists",
        field=field,
    )


def _label(value: Any, field: str) -> str:
    name = str(decode.text(r"[!-~]{1,255}", "a label's name")(value, field))
    if name in LABELS or name.startswith(RESERVED_LABELS):
        raise RefusedError(f"this label is not a DAG's to set; {NO_SETTING}", field=field)
    return name


def _place(value: Any, field: str) -> str:
    """Accept an absolute path that leads to nothing of the kernel's, as it is written."""
    path = str(_TEXT(value, field))
    parts = path.removeprefix("/").removesuffix("/").split("/")
    if not path.startswith("/") or (path != "/" and {"", ".", ".."} & set(parts)):
        raise RefusedError(f'"{printable(path)}" is not an absolute path without detours', field=field)
    if parts[0] in _KERNEL:
        raise RefusedError(f'"{printable(path)}" is the kernel\'s; {NO_SETTING}', field=field)
    return "/" + "/".join(parts)


def _working_directory(value: Any, field: str) -> str:
    """Accept a directory of the container; nothing stands for the image's own."""
    return "" if value == "" else _place(value, field)


def _target(value: Any, field: str) -> str:
    """Accept a place for a volume, which is not the whole of the container."""
    path = _place(value, field)
    if path == "/":
        raise RefusedError("a volume cannot be mounted over the whole container", field=field)
    return path
