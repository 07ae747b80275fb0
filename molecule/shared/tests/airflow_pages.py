"""What Airflow shows of a run to somebody who has logged in: on its pages, and in its REST API."""

from __future__ import annotations

import html
from typing import Any

from airflow_api import AirflowApi, log_in

LISTS = ("/home", "/connection/list/", "/variable/list/", "/xcom/list/", "/log/list/", "/users/list/")
OF_A_TASK = ("/rendered-templates", "/xcom", "/log", "/task")
ANSWERS = ("connections", "variables", "eventLogs")
ANSWERS_OF_A_TASK = ("", "/xcomEntries", "/logs/1?full_content=true")


def shown(address: str, login: tuple[str, str], run: dict[str, Any]) -> dict[str, str]:
    """Return the text of each page and of each answer, by its place; `run` is the API's document of a run."""
    session, api = log_in(address, login), AirflowApi(address, login)
    dag, identity, date = run["dag_id"], run["dag_run_id"], run["execution_date"]

    def page(path: str, **parameters: str) -> str:
        answer = session.get(f"{address}{path}", params=parameters, timeout=60, allow_redirects=False)
        assert answer.status_code == 200, f"{path} {parameters}: {answer.status_code}"
        return f"{answer.text}\n{html.unescape(answer.text)}"

    def answer(path: str) -> str:
        given = api.ask("GET", path)
        given.raise_for_status()
        return given.text

    def xcoms(task: str) -> list[str]:
        entries = api.get(f"{of_run}/taskInstances/{task}/xcomEntries")["xcom_entries"]
        return [f"/xcomEntries/{entry['key']}" for entry in entries]

    of_run = f"dags/{dag}/dagRuns/{identity}"
    tasks = [task["task_id"] for task in api.get(f"{of_run}/taskInstances")["task_instances"]]
    texts = {f"the page {path}": page(path) for path in LISTS}
    texts |= {f"the answer {path}": answer(f"{path}?limit=100") for path in ANSWERS}
    texts |= {"the answer of the run": answer(of_run)}
    for task in tasks:
        of_task = {"dag_id": dag, "task_id": task, "execution_date": date, "map_index": "-1"}
        texts |= {f"the page {path} of {task}": page(path, **of_task) for path in OF_A_TASK}
        texts[f"the log on its page of {task}"] = page("/get_logs_with_metadata", **of_task, try_number="1")
        texts |= {
            f"the answer {path} of {task}": answer(f"{of_run}/taskInstances/{task}{path}")
            for path in (*ANSWERS_OF_A_TASK, *xcoms(task))
        }
    with session:
        return texts
