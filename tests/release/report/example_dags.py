"""DAG files as teams have them, for the tests of the report."""

GOOD = """
from datetime import datetime
from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("good", start_date=datetime(2024, 1, 1), schedule=None):
    BashOperator(task_id="task", bash_command="true")
"""

DOCKER = """
from datetime import datetime
from airflow import DAG
from airflow.operators.docker_operator import DockerOperator

with DAG("{dag_id}", start_date=datetime(2024, 1, 1), schedule_interval="@daily"):
    DockerOperator(task_id="task", image="alpine", auto_remove={auto_remove})
"""

BROKEN = "import surely_not_there  # airflow dag\n"

# Nothing fails, and with another minor version one DAG is not there.
BY_VERSION = """
from datetime import datetime
import airflow
from airflow import DAG

always = DAG("always", start_date=datetime(2024, 1, 1), schedule=None)
if airflow.__version__.startswith("2.6"):
    sometimes = DAG("sometimes", start_date=datetime(2024, 1, 1), schedule=None)
"""

NEWER = """
from datetime import datetime
from airflow.decorators import dag
from airflow.models.baseoperator import chain_linear  # 2.7 and newer

@dag(start_date=datetime(2024, 1, 1), schedule=None)
def newer():
    pass

newer()
"""

FILES = {
    "dags/good.py": GOOD,
    "dags/nightly_docker.py": DOCKER.format(dag_id="nightly-docker", auto_remove="True"),
    "dags/as_hinted.py": DOCKER.format(dag_id="as-hinted", auto_remove="'success'"),
    "dags/broken.py": BROKEN,
    "dags/by_version.py": BY_VERSION,
    "dags/newer.py": NEWER,
    "images/airflow/requirements.txt": "surely-not-there==1.0\n",
}
