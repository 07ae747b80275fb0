"""The moves between an operation's states: the table in the code, and the diagrams that show it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_release.core.host import Host
from airflow_release.switch import journal
from airflow_release.switch.journal import ENDED, MOVES, Journal, Operation

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "docs/architecture.md"
BEGIN = "begin"
"""The command with which an operation is `prepared`."""

LEFT, RIGHT, UP, DOWN = (0, -1), (0, 1), (-1, 0), (1, 0)
HEADS = {LEFT: "<", RIGHT: ">", UP: "^", DOWN: "v"}
LINES = {LEFT: "-", RIGHT: "-", UP: "|", DOWN: "|"}
CORNERS = {LEFT: (UP, DOWN), RIGHT: (UP, DOWN), UP: (LEFT, RIGHT), DOWN: (LEFT, RIGHT)}


class Diagram:
    """A diagram of characters: words, and arrows that leave them to the right or from below."""

    def __init__(self, text: str) -> None:
        self.rows = text.splitlines()
        self.words = {
            (row, column): found[0]
            for row, line in enumerate(self.rows)
            for found in re.finditer(r"[a-z]+", line)
            if found[0] in (*MOVES, BEGIN)
            for column in range(found.start(), found.end())
        }

    def at(self, row: int, column: int) -> str:
        return self.rows[row][column] if 0 <= row < len(self.rows) and column < len(self.rows[row]) else " "

    def moves(self) -> Iterator[tuple[str, str]]:
        """Follow each arrow from the word that it leaves."""
        for (row, column), word in self.words.items():
            if self.at(row + 1, column) == LINES[DOWN]:
                yield word, self.follow(row + 1, column, DOWN)
            if (row, column + 1) not in self.words and self.at(row, column + 2) == LINES[RIGHT]:
                yield word, self.follow(row, column + 2, RIGHT)

    def follow(self, row: int, column: int, way: tuple[int, int]) -> str:
        """Return the word to which an arrow leads."""
        while (sign := self.at(row, column)) != HEADS[way]:
            if sign == "+":
                [way] = [
                    turn
                    for turn in CORNERS[way]
                    if self.at(row + turn[0], column + turn[1]) in (LINES[turn], HEADS[turn])
                ]
            else:
                assert sign == LINES[way], f"an arrow ends at row {row}, column {column}"
            row, column = row + way[0], column + way[1]
        # A word stands right below or above the head, and a space away beside it.
        space = abs(way[1])
        return self.words[row + way[0], column + way[1] * (1 + space)]


def diagram(text: str) -> str:
    """Return the block with the diagram, without the indentation of the page."""
    [block] = [block for block in re.split(r"\n(?=\S)", text) if f"{BEGIN} --> " in block]
    return "\n".join(line for line in block.splitlines() if line.startswith("    "))


def diagrams() -> dict[str, str]:
    return {"code": diagram(journal.__doc__ or ""), "page": diagram(ARCHITECTURE.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("place", ["code", "page"])
def test_diagram_has_the_moves_of_the_table(place: str) -> None:
    table = {(state, following) for state, many in MOVES.items() for following in many}
    assert set(Diagram(diagrams()[place]).moves()) == table | {(BEGIN, Operation("", "", "", "").state)}


def test_diagrams_are_the_same() -> None:
    """Also in the words beside the arrows."""
    assert diagrams()["code"] == diagrams()["page"]


@pytest.mark.parametrize("state", MOVES)
@pytest.mark.parametrize("following", [*MOVES, "begun"])
def test_no_other_move_is_made(tmp_path: Path, state: str, following: str) -> None:
    """A state that is written again is no move; nothing of a refused one is written."""
    host = Host(tmp_path)
    operation = Operation("id", "upgrade", "2.5.3", "2.6.1", state=state)
    Journal(host, quiet=True).save(operation)
    if following in (state, *MOVES[state]):
        Journal(host, quiet=True).move(operation, following)
    else:
        with pytest.raises(ValueError, match=f"cannot move from {state} to '{following}'"):
            Journal(host, quiet=True).move(operation, following)
    kept = Journal(host).read()
    assert kept is not None
    assert kept.state == (following if following in MOVES[state] else state)


@pytest.mark.parametrize("file", ["roles/upgrade/vars/main.yml", "playbooks/restore.yml"])
def test_ansible_knows_the_same_ends(file: str) -> None:
    """It reads the journal where no command of the host can be asked."""
    lists = re.findall(r" in \['(.*?)'\]", (ROOT / file).read_text(encoding="utf-8"))
    [ends] = [states for states in (found.split("', '") for found in lists) if "succeeded" in states]
    assert sorted(ends) == sorted(ENDED)
