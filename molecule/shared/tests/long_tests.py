"""The mark of tests that take minutes and are run when somebody asks for them."""

import os

import pytest

when_asked = pytest.mark.skipif(
    os.environ.get("UPGRADE_TESTS") != "all", reason="takes minutes; set UPGRADE_TESTS=all"
)
