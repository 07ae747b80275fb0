"""What people would miss: read from the database and, where it is encrypted, through Airflow itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Rows = dict[str, Row]

PULSE = "upgrade-pulse"
LONG = "upgrade-long"
MOVING = ("weather-checker", PULSE, LONG)
"""DAGs that run while others do not: rows of theirs may come, and none may go or change."""
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")

# Columns that all versions have, with what is in them after a migration as before.
TABLES = {
    "dag_run": (
        "dag_id || ' ' || run_id",
        "dag_id, run_id, run_type, state, execution_date, queued_at, start_date, end_date, external_trigger,"
        " data_interval_start, data_interval_end, md5(conf::text) AS conf",
    ),
    "task_instance": (
        "dag_id || ' ' || run_id || ' ' || task_id || ' ' || map_index",
        "dag_id, state, start_date, end_date, duration, hostname, unixname, pool, queue, operator",
    ),
    "xcom": (
        "dag_id || ' ' || run_id || ' ' || task_id || ' ' || map_index || ' ' || key",
        "dag_id, timestamp",
    ),
    "slot_pool": ("pool", "slots, description"),
    "ab_user": ("username", "email, first_name, last_name, active"),
    "dag": ("dag_id", "is_paused"),
}

DECRYPT = """\
import json
from airflow.models import Connection, Variable, XCom
from airflow.utils.session import create_session

fields = ("conn_type", "host", "schema", "login", "password", "port", "extra", "is_encrypted")
with create_session() as session:
    connections = {c.conn_id: {f: getattr(c, f) for f in fields} for c in session.query(Connection)}
    variables = {
        v.key: {"value": v.get_val(), "is_encrypted": v.is_encrypted} for v in session.query(Variable)
    }
    columns = (XCom.dag_id, XCom.run_id, XCom.task_id, XCom.map_index, XCom.key, XCom.value)
    xcoms = {
        " ".join(map(str, row[:-1])): {"dag_id": row.dag_id, "value": repr(XCom.deserialize_value(row))}
        for row in session.query(*columns)
    }
print("\\n" + json.dumps({"connection": connections, "variable": variables, "xcom value": xcoms}))
"""


@dataclass(frozen=True)
class Snapshot:
    """Each table's rows by what they are called."""

    tables: dict[str, Rows]

    def differences(self, later: Snapshot) -> list[str]:
        """Return in words what was lost, changed or added since; [] when it is the same platform."""
        found = []
        for table, rows in self.tables.items():
            after = later.tables[table]
            found += [f"{table}: {key} is gone" for key in rows.keys() - after.keys()]
            found += [
                f"{table}: {key} was {row} and is {after[key]}"
                for key, row in rows.items()
                if key in after and row != after[key] and not _under_way(row)
            ]
            found += [
                f"{table}: {key} is new: {after[key]}"
                for key in after.keys() - rows.keys()
                if after[key].get("dag_id") not in MOVING
            ]
        return sorted(found)


def _under_way(row: Row) -> bool:
    return "state" in row and row["state"] not in ENDED


def take(sql: Callable[[str], str], python: Callable[[str], str]) -> Snapshot:
    """Read all of it: `sql` answers a query with its rows, `python` runs a program where Airflow is."""
    tables: dict[str, Rows] = {table: {} for table in TABLES}
    for line in sql(" UNION ALL ".join(map(_query, TABLES))).splitlines():
        row = json.loads(line)
        tables[row["table"]][row["key"]] = row["values"]
    # Airflow may say things of its own before.
    return Snapshot({**tables, **json.loads(python(DECRYPT).splitlines()[-1])})


def _query(table: str) -> str:
    key, columns = TABLES[table]
    where = "WHERE is_active" if table == "dag" else ""
    values = f"(SELECT row_to_json(r) FROM (SELECT {columns}) r)"
    return (
        f"SELECT json_build_object('table', '{table}', 'key', {key}, 'values', {values}) FROM {table} {where}"
    )
