"""The one kind of error that this package raises for an operator to read."""

from __future__ import annotations

import re

OUTPUT_KEPT = 20_000
"""Characters of a failed command's output that an error carries."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Select Graphic Rendition, ECMA-48 8.3.117; Airflow and pip colour even what nobody sees on a terminal."""


class ReleaseError(Exception):
    """What went wrong, in words for an operator; `log` has the output of what failed."""

    def __init__(self, message: str, log: str = "") -> None:
        """Keep the end of the log, without colours: that is where a failure is."""
        super().__init__(message)
        self.log = _COLOUR.sub("", log)[-OUTPUT_KEPT:]
