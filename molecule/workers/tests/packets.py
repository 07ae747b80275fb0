"""What goes between the main host and a worker's, as anybody on the network sees it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from delivery import HOST
from worker_host import WorkerHost

# Runs on the main host until its standard input ends. Where a packet leaves it has the hosts' own addresses.
PROGRAM = r"""
import base64, collections, json, select, socket, struct, sys
ALL, STATISTICS, PACKET = 0x0003, 6, 263
other = socket.inet_aton(sys.argv[1])
flows = collections.defaultdict(bytearray)
seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ALL))
seen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
seen.bind(("eth0", 0))
print("ready", flush=True)
while True:
    readable, _, _ = select.select([seen, sys.stdin], [], [])
    if seen in readable:
        frame = seen.recv(1 << 18)
        if frame[12:14] == b"\x08\x00" and other in (frame[26:30], frame[30:34]) and frame[23] in (6, 17):
            begin = 14 + 4 * (frame[14] & 15)
            source, target = struct.unpack("!HH", frame[begin : begin + 4])
            header = 4 * (frame[begin + 12] >> 4) if frame[23] == 6 else 8
            length = int.from_bytes(frame[16:18], "big")
            # A frame that the card is to cut has no length; a short one is filled up.
            end = 14 + length if length else len(frame)
            name = (socket.inet_ntoa(frame[26:30]), source, socket.inet_ntoa(frame[30:34]), target)
            flows[name] += frame[begin + header : end]
    elif sys.stdin in readable:
        break
_, lost = struct.unpack("II", seen.getsockopt(PACKET, STATISTICS, 8))
found = [[*name, base64.b64encode(text).decode()] for name, text in flows.items()]
print(json.dumps({"lost": lost, "flows": found}))
"""


@dataclass
class Packets:
    """What was captured: each direction of each connection, from whom to whom, with all its bytes."""

    lost: int = 0
    """Packets that came too fast."""
    flows: dict[tuple[str, int, str, int], bytes] = field(default_factory=dict)

    def having(self, text: bytes) -> list[tuple[str, int, str, int]]:
        """Return the directions that have a text."""
        return [name for name, found in self.flows.items() if text in found]

    @property
    def ports(self) -> set[int]:
        """Return the ports to which connections were made: the lower one of either end."""
        return {min(source, target) for _, source, _, target in self.flows}


@contextmanager
def captured(worker: WorkerHost) -> Iterator[Packets]:
    """Capture what goes between the two hosts; the result is there afterwards."""
    packets = Packets()
    process = subprocess.Popen(
        ["docker", "exec", "--interactive", HOST, "python3", "-c", PROGRAM, worker.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    try:
        yield packets
    finally:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    found = json.loads(output)
    packets.lost = found["lost"]
    for *name, text in found["flows"]:
        packets.flows[tuple(name)] = base64.b64decode(text)
