"""What is told to HAProxy's runtime API, and what is read from it."""

from __future__ import annotations

import pytest
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.switch import haproxy

HEADER = "# pxname,svname,qcur,qmax,scur,smax"


class Proxy(Host):
    """A host whose HAProxy gives these answers, one after the other, and `""` from then on."""

    def answers(self, *answers: str) -> list[str]:
        """Set the answers; return the list in which its commands will be."""
        commands: list[str] = []
        left = list(answers)

        def compose(*arguments: str, **_: object) -> str:
            commands.append(arguments[-1].split("'")[3])
            return left.pop(0) if left else ""

        object.__setattr__(self, "compose", compose)
        return commands


def statistics(**sessions: int) -> str:
    """Return HAProxy's statistics with these sessions of the servers of Airflow's port."""
    rows = [f"airflow,{server},0,0,{number},9" for server, number in sessions.items()]
    return "\n".join([HEADER, "airflow,FRONTEND,,,7,9", *rows, "weather,weather,0,0,3,3", ""])


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (
            haproxy.STANDBY,
            "set server airflow/standby state ready; set server airflow/airflow state maint",
        ),
        (None, "set server airflow/airflow state maint; set server airflow/standby state maint"),
    ],
)
def test_port_is_moved_in_one_go(server: str | None, told: str) -> None:
    host = Proxy()
    commands = host.answers("\n\n")
    haproxy.use(host, server)
    assert commands == [told]


def test_refusal_is_an_error() -> None:
    host = Proxy()
    host.answers("No such server.\n")
    with pytest.raises(ReleaseError, match=r"HAProxy refused .*: No such server\."):
        haproxy.use(host, haproxy.LIVE)


def test_requests_under_way_are_awaited() -> None:
    host = Proxy()
    commands = host.answers(statistics(airflow=2, standby=0), statistics(airflow=1), statistics(airflow=0))
    haproxy.wait_until_idle(host, haproxy.LIVE, 10)
    assert commands == ["show stat"] * 3


def test_waiting_has_an_end() -> None:
    host = Proxy()
    host.answers(*[statistics(airflow=1)] * 50)
    haproxy.wait_until_idle(host, haproxy.LIVE, 0.3)


def test_reload_is_over_when_another_process_answers() -> None:
    """What is told to the one that goes is lost with it."""
    host = Proxy()
    commands: list[str] = []
    answers = ["Name: HAProxy\nPid: 8", "", "Pid: 8", "no answer", "Pid: 21"]

    def compose(*arguments: str, **_: object) -> str:
        commands.append(arguments[-1])
        answer = answers.pop(0)
        if answer == "no answer":
            raise ReleaseError("telling HAProxy failed with code 1")
        return answer

    object.__setattr__(host, "compose", compose)
    haproxy.reload(host)
    assert answers == []
    assert commands[1] == "kill -HUP 1"


def test_configuration_that_haproxy_does_not_take_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Proxy()
    object.__setattr__(host, "compose", lambda *arguments, **_: "Pid: 8")
    monkeypatch.setattr(haproxy, "RELOAD_SECONDS", 0)
    with pytest.raises(ReleaseError, match="did not take its configuration"):
        haproxy.reload(host)
