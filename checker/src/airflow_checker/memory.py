"""What is remembered from one run to the next: since when, told how often, restarted when, and what grows.

Every list has a bound. A memory that cannot be read begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from airflow_checker import judge
from airflow_checker.facts import Disk, Facts
from airflow_checker.files import replace_json
from airflow_checker.gather.host import DOCKER_UNITS, KEEPERS, document
from airflow_checker.lights import LIGHTS, Finding

SAMPLE_SECONDS = 3600.0
SAMPLES = 24 * 7
MOST_EPISODES = 200
CALM_SECONDS = 300.0
"""For so long a fault that somebody was told of has to be away before it is over."""


@dataclass
class Episode:
    """A fault from its first sight until it is over; times are in seconds since the epoch."""

    since: float
    last: float
    runs: int = 1
    """In how many runs it was seen in a row."""
    told: int = 0
    """How many messages were sent of it."""
    told_at: float = 0.0
    told_restarts: int = 0
    """How many restarts the last message named."""
    restarts: int = 0
    what: str = ""


@dataclass
class Memory(judge.Trends):
    """See above."""

    episodes: dict[str, Episode] = field(default_factory=dict)
    started: dict[str, list[float]] = field(default_factory=dict)
    """By service: when its container started, within the last hour."""
    restarted: dict[str, list[float]] = field(default_factory=dict)
    """By service: when it was restarted to mend it, within the last hour."""
    used: dict[str, list[list[float]]] = field(default_factory=dict)
    """By disk: samples of time and used bytes."""
    database: list[list[float]] = field(default_factory=list)
    """Samples of time and bytes."""
    died: dict[str, list[float]] = field(default_factory=dict)
    """By unit of Docker: how often systemd has started it again, and when that was last seen to grow."""
    boot: dict[str, Any] = field(default_factory=dict)
    """The boot of the last run, what was known of the platform's stop then, and when a power cut was seen."""
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: float = 0.0

    def kept(self, name: str) -> dict[str, Any]:
        """Return a note that its owner reads and writes."""
        return self.notes.setdefault(name, {})

    def observe(self, facts: Facts) -> None:
        """Take what is to be remembered of an observation."""
        self.now = facts.now
        on_purpose = facts.stopped or judge.switching(facts.operation)
        for service, container in facts.containers.items():
            self._started(service, container.started, on_purpose=on_purpose)
        for unit in facts.units:
            if unit.name in DOCKER_UNITS:
                count, at = self.died.get(unit.name, (unit.restarts, 0.0))
                self.died[unit.name] = [unit.restarts, self.now if unit.restarts > count else at]
        self._booted(facts)
        for disk in facts.disks:
            _sample(self.used.setdefault(disk.path, []), facts.now, disk.size - disk.free)
        if facts.database is not None:
            _sample(self.database, facts.now, facts.database.size)
        if facts.worker_hosts is not None:
            self.kept("worker hosts")["queues"] = sorted(judge.queues_taken(facts.worker_hosts))

    def see(self, findings: Sequence[Finding], *, blind: bool) -> dict[str, Episode]:
        """Update the episodes; return those that are over and that somebody was told of, by key.

        Blind is a run that cannot see whether the platform is well: nothing is over then.
        """
        for finding in findings:
            episode = self.episodes.get(finding.key)
            if episode is None:
                episode = self.episodes[finding.key] = Episode(since=self.now, last=self.now, runs=0)
            episode.runs, episode.last, episode.what = episode.runs + 1, self.now, finding.what
        over = {}
        seen = {finding.key for finding in findings}
        for key, episode in list(self.episodes.items()):
            if key in seen:
                continue
            episode.runs = 0
            if blind:
                episode.last = self.now
            elif _once(key) or not episode.told or not 0 <= self.now - episode.last < CALM_SECONDS:
                del self.episodes[key]
                if episode.told and not _once(key):
                    over[key] = episode
        while len(self.episodes) > MOST_EPISODES:
            del self.episodes[min(self.episodes, key=lambda key: self.episodes[key].last)]
        return over

    def owe(self, over: Mapping[str, Episode]) -> None:
        """Keep what is over and could not be told: the next run finds it over again."""
        self.episodes.update(over)

    def restarts(self, service: str) -> int:
        """Return how often a service was restarted to mend it within the last hour."""
        return len(self._lately(self.restarted, service))

    def restart(self, service: str) -> None:
        """Remember a restart."""
        self.restarted[service] = [*self._lately(self.restarted, service), self.now]

    def starts(self, service: str) -> int:
        """See `judge.Trends`; restarts that mend a fault are told with that fault."""
        return max(0, len(self._lately(self.started, service)) - self.restarts(service))

    def unit_died(self, unit: str) -> float:
        """See `judge.Trends`."""
        return self.died.get(unit, [0.0, 0.0])[1]

    def power_cut(self) -> float:
        """See `judge.Trends`."""
        return float(self.boot.get("cut", 0.0))

    def days_until_full(self, disk: Disk) -> float | None:
        """See `judge.Trends`; by the least-squares line through the samples of at least a day."""
        samples = self.used.get(disk.path, [])
        if len(samples) < 2 or samples[-1][0] - samples[0][0] < judge.DAY * 0.95:
            return None
        mean_time = sum(sample[0] for sample in samples) / len(samples)
        mean_used = sum(sample[1] for sample in samples) / len(samples)
        spread = sum((sample[0] - mean_time) ** 2 for sample in samples)
        slope = sum((at - mean_time) * (used - mean_used) for at, used in samples) / spread
        # Less than a thousandth of the disk a day is no growth that anybody has to look at.
        return disk.free / slope / judge.DAY if slope * judge.DAY > disk.size / 1000 else None

    def database_growth(self) -> tuple[int, float] | None:
        """See `judge.Trends`."""
        past = [sample for sample in self.database if self.now - sample[0] <= judge.DAY * 1.1]
        if len(past) < 2 or past[-1][0] - past[0][0] < judge.DAY * 0.9:
            return None
        grown = past[-1][1] - past[0][1]
        return int(grown), grown / max(past[0][1], 1)

    def queues_elsewhere(self) -> set[str]:
        """See `judge.Trends`."""
        return set(self.kept("worker hosts").get("queues", ()))

    def save(self, path: Path, spare: Path) -> None:
        """Write it down; elsewhere where the disk takes no file, so that nothing is told again and again.

        Raises:
            OSError: it is kept in neither place, or in the spare one only.
        """
        values = {name: value for name, value in vars(self).items() if name not in ("episodes", "now")}
        episodes = {key: vars(episode) for key, episode in self.episodes.items()}
        kept = {**values, "episodes": episodes}
        try:
            replace_json(path, kept)
        except OSError:
            replace_json(spare, kept)
            raise
        spare.unlink(missing_ok=True)

    def _lately(self, of: dict[str, list[float]], service: str) -> list[float]:
        return [at for at in of.get(service, []) if 0 <= self.now - at < judge.HOUR]

    def _started(self, service: str, at: float, *, on_purpose: bool) -> None:
        """Count a start that was not there at the last run; what an operation or a stop does begins anew."""
        known = self.started.get(service)
        if known is None or on_purpose:
            self.started[service] = [at]
        elif at not in known:
            # The last one stays, however old, so that it is not counted again.
            self.started[service] = [*self._lately(self.started, service), at][-20:]

    def _booted(self, facts: Facts) -> None:
        """See a boot before which nobody told the platform to stop, though it was kept running."""
        if not facts.boot:
            return
        known = self.boot
        cut = (
            bool(known.get("kept"))
            and facts.boot != known["id"]
            and facts.told_to_stop == known["told_to_stop"]
        )
        self.boot = {
            "id": facts.boot,
            "told_to_stop": facts.told_to_stop,
            "kept": any(unit.name in KEEPERS and unit.active == "active" for unit in facts.units),
            "cut": self.now if cut else known.get("cut", 0.0),
        }

    def __post_init__(self) -> None:
        """Take episodes as they were written."""
        self.episodes = {
            key: episode if isinstance(episode, Episode) else Episode(**episode)
            for key, episode in self.episodes.items()
        }


def _once(key: str) -> bool:
    """Say whether a finding's end is told to nobody; a light of an earlier version may be unknown."""
    light = LIGHTS.get(key.split()[0])
    return light is not None and light.once


def _sample(samples: list[list[float]], now: float, value: float) -> None:
    """Add a sample once an hour; a clock that went back begins anew."""
    if samples and now < samples[-1][0]:
        samples.clear()
    if not samples or now - samples[-1][0] >= SAMPLE_SECONDS:
        samples.append([now, value])
        del samples[:-SAMPLES]


def load(path: Path, spare: Path) -> Memory:
    """Read the memory, the spare one where there is one; one that is not there or is damaged begins anew."""
    empty = Memory()
    known = {each.name: type(getattr(empty, each.name)) for each in fields(Memory) if each.name != "now"}
    kept = document(spare) or document(path)
    values: dict[str, Any] = {
        name: value for name, value in kept.items() if isinstance(value, known.get(name, ()))
    }
    try:
        return Memory(**values)
    except TypeError:
        return empty
