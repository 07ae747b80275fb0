"""Makes the program of images/annotate importable and runnable; its container only adds Debian packages."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

PROGRAM_DIR = Path(__file__).resolve().parents[2] / "images" / "annotate"
sys.path.insert(0, str(PROGRAM_DIR))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run() -> Run:
    """Run the program as the container does, as a process of its own."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(PROGRAM_DIR / "annotate.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=180)

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A plain grey picture of a size that the city's cameras have."""
    path = tmp_path / "original.jpg"
    Image.new("RGB", (704, 480), (128, 128, 128)).save(path, quality=95)
    return path
