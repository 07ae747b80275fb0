"""A follower that does what one answer says, and is killed just before the n-th thing that it writes.

python -m tests.webhook.killed_follower <n> <prepare or -> <live or ->
"""

import os
import signal
import sys
from typing import Any

from webhook.follower import Answer, Follower
from webhook.settings import follower_from_environment

DOES = ("os.rename", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.utime", "subprocess.Popen")


def main() -> None:
    last = int(sys.argv[1])
    prepare, live = (None if commit == "-" else commit for commit in sys.argv[2:4])
    settings = follower_from_environment()
    settings.delivery.state_dir.mkdir(parents=True, exist_ok=True)
    follower = Follower(settings, lambda commit, prepared: Answer(prepare, live, 10))
    done = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if event in DOES or writes:
            done += 1
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    for _ in range(3):
        follower.step()


if __name__ == "__main__":
    main()
