"""The gate's client: which DAG files a change is about."""

import pytest
from webhook.gate import Verdict


@pytest.mark.parametrize(
    ("changed", "refreshed"),
    [
        ({"dags/conf.json"}, {"dags/reads.py"}),
        ({"dags/helper.py"}, {"dags/looks.py"}),
        ({"dags/helper/__init__.py", "dags/helper/"}, {"dags/looks.py"}),
        ({"dags/helper.cpython-311-x86_64-linux-gnu.so", "dags/"}, {"dags/looks.py"}),
        ({"top.py", "./"}, {"dags/looks.py"}),
        ({"dags/helper/part.py", "dags/helper/", "dags/", "other/helper.py", "helper.py"}, set()),
    ],
    ids=["a file that was read", "a module", "a package", "an extension", "at the top", "elsewhere"],
)
def test_files_that_read(changed: set[str], refreshed: set[str]) -> None:
    """A module that came or went is read by whoever looked for it, wherever it was found before."""
    verdict = Verdict(
        reasons=[],
        reads={"dags/reads.py": ["dags/reads.py", "dags/conf.json"], "dags/looks.py": ["dags/looks.py"]},
        lookups={"dags/reads.py": ["dags/utils"], "dags/looks.py": ["dags/helper", "./top"]},
        airflow_version="2.11.2",
        seconds=0,
    )
    assert verdict.files_that_read(changed) == refreshed
