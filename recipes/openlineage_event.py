"""An OpenLineage event of a report, by openlineage-python; OPENLINEAGE_URL or openlineage.yml say where it goes.

overscan evidence report --store store --out evidence.json && python openlineage_event.py evidence.json

Its inputs are the files of captions that the scan read, its output the report. It holds paths and numbers, no captions.
"""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from openlineage.client import OpenLineageClient, set_producer
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality
from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics
from openlineage.client.uuid import generate_new_uuid


def dataset(place: str) -> tuple[str, str]:
    """A place as OpenLineage names it: (namespace, name)."""
    url = urlsplit(place)
    return (f"{url.scheme}://{url.netloc}", url.path.lstrip("/")) if url.netloc else ("file", place)


def event(evidence: dict, report: str) -> RunEvent:
    """The end of the run that made the report."""
    predicate = evidence["predicate"]
    result = predicate["result"]
    new = quality.Assertion(assertion="no new memorized captions", success=result["findings"]["new"] == 0)
    checked = {"dataQualityAssertions": quality.DataQualityAssertionsDatasetFacet(assertions=[new])}
    rows = statistics.OutputStatisticsOutputDatasetFacet(rowCount=result["flagged_rows"])
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=predicate["made"],
        run=Run(runId=str(generate_new_uuid())),
        job=Job(namespace="overscan", name=f"report.{result['scan_id'][:8]}"),
        inputs=[InputDataset(*dataset(file["name"]), facets=checked) for file in predicate["dataset"]["files"]],
        outputs=[OutputDataset(*dataset(report), outputFacets={"outputStatistics": rows})],
    )


if __name__ == "__main__":
    set_producer("urn:overscan:recipes:openlineage")
    statement = json.loads(Path(sys.argv[1]).read_text())
    OpenLineageClient().emit(event(statement, str(Path(sys.argv[2] if len(sys.argv) > 2 else "report").resolve())))
