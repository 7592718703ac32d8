"""A nightly audit as an Airflow DAG. Airflow stops a task with SIGTERM, which the scan answers with exit code 3."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("overscan", schedule="30 2 * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1):
    scan = BashOperator(
        task_id="scan",
        bash_command="overscan scan --json",
        cwd="/srv/overscan",
        append_env=True,
        retries=3,  # the same command goes on from there
        execution_timeout=timedelta(hours=5),
    )
    threshold = BashOperator(  # chosen on the first night, and kept
        task_id="threshold",
        bash_command="test -e threshold.json || overscan threshold",
        cwd="/srv/overscan",
        append_env=True,
    )
    report = BashOperator(task_id="report", bash_command="overscan report", cwd="/srv/overscan", append_env=True)
    lineage = BashOperator(  # what was read and what came of it, for a catalogue that speaks OpenLineage
        task_id="lineage",
        bash_command="overscan evidence report --out evidence.json && python openlineage_event.py evidence.json",
        cwd="/srv/overscan",
        append_env=True,
    )
    scan >> threshold >> report >> lineage
