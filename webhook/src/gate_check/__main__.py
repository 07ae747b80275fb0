"""Starts the command line: Python is given this folder as its program."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gate_check.cli import main  # noqa: E402 - found by the line above

del sys.path[0]  # what lies there must not be what a DAG imports
sys.exit(main())
