"""A report for other programs: metrics for Prometheus, new findings for the pages of CI systems (JUnit, SARIF).

Each is a text made of a report's contents. CI pages show what is new only: who has a baseline has seen the rest.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import polars as pl

from scanner.audit.summary import Summary
from scanner.copies import change
from scanner.errors import ScannerError, first_line, printable
from scanner.files import replacing
from scanner.identity import shown
from scanner.pages.safe import visible_text
from scanner.places import Place
from scanner.report.contents import Contents, counts_by_status

LONGEST = 120  # characters of a caption on a CI page
PLACES = 20  # dataset rows that a finding of a CI page names
RULE = "likely-memorized"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def prometheus(contents: Contents, summary: Summary) -> str:
    """Gauges in Prometheus' text format, for the textfile collector of node_exporter."""
    statuses = counts_by_status(contents)
    info = {
        "scan_id": summary.scan_id,
        "score": summary.score,
        "kind": "decision" if summary.rule.decides else "ranking",
    }
    named = ",".join(f'{name}="{value}"' for name, value in info.items())
    drifts = any(note.startswith("drift:") for note in summary.notes)
    gauges: list[tuple[str, str, Mapping[str, float]]] = [
        ("prompts", "Unique prompts of the dataset.", {"": summary.prompts}),
        ("scored", "Prompts with a score.", {"": summary.scored}),
        ("pending", "Prompts newer than the scan.", {"": statuses.get("not scored yet", 0)}),
        ("flagged", "Flagged prompts: flagged is not memorized.", {"": summary.flagged}),
        ("flagged_rows", "Dataset rows that bear a flagged prompt.", {"": summary.flagged_rows}),
        (
            "findings",
            "Flagged prompts by what is known of them.",
            {f'{{finding="{name}"}}': count for name, count in vars(summary.findings).items()},
        ),
        ("drift", "1 where the scores of new prompts differ from the earlier report's.", {"": float(drifts)}),
        ("report_finished_timestamp_seconds", "When the report was made.", {"": contents.made.timestamp()}),
        ("report_info", "What was reported.", {f"{{{named}}}": 1}),
    ]
    lines = []
    for name, meaning, values in gauges:
        lines += [f"# HELP overscan_{name} {meaning}", f"# TYPE overscan_{name} gauge"]
        lines += [f"overscan_{name}{labels} {value!r}" for labels, value in values.items()]
    return "\n".join(lines) + "\n"


def junit(contents: Contents, summary: Summary) -> str:
    """A test case that fails for each new finding; a single one that passes where there is none."""
    found = _new(contents)
    cases = [_case(row, contents) for row in found.iter_rows(named=True)]
    if not cases:
        name = f"no new finding among {summary.scored:,} scored prompts"
        cases = [Element("testcase", classname=f"overscan.{summary.score}", name=name)]
    counts = {"tests": str(len(cases)), "failures": str(len(found)), "errors": "0", "skipped": "0"}
    head = {"name": "overscan", "time": "0", **counts}
    suite = Element("testsuite", head | {"timestamp": f"{contents.made:%Y-%m-%dT%H:%M:%S}", "hostname": ""})
    properties = SubElement(suite, "properties")
    for name, value in {"headline": summary.headline, "scan_id": summary.scan_id, "rule": contents.rule}.items():
        SubElement(properties, "property", name=name, value=printable(value))
    suite.extend(cases)
    suites = Element("testsuites", head)
    suites.append(suite)
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}\n'


def sarif(contents: Contents, summary: Summary) -> str:
    """SARIF 2.1.0: a result for each new finding, with the dataset rows that bear its prompt."""
    rule = {
        "id": RULE,
        "name": "LikelyMemorized",
        "shortDescription": {"text": "A caption that the model has likely memorized"},
        "fullDescription": {"text": f"Flagged by {contents.rule}. Flagged is not memorized: `overscan verify` shows."},
        "defaultConfiguration": {"level": "warning"},
    }
    driver = {"name": "overscan", "version": version("overscan"), "rules": [rule]}
    results = [_result(row, contents) for row in _new(contents).iter_rows(named=True)]
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"overscan/{summary.scan_id}"},
        "results": results,
        "properties": {"headline": summary.headline, "notes": list(summary.notes)},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


FORMS: Mapping[str, Callable[[Contents, Summary], str]] = {"metrics": prometheus, "junit": junit, "sarif": sarif}


def hand_over(places: Mapping[str, Place | None], contents: Contents, summary: Summary) -> list[Place]:
    """Write those of FORMS that have a place, each whole or not at all; returns the places. Raises ScannerError."""
    written = []
    for name, place in places.items():
        if place is not None:
            change(place, partial(_write, FORMS[name](contents, summary)))
            written.append(place)
    return written


def _write(text: str, path: Path) -> None:
    try:
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScannerError(f"{path}: cannot be written ({first_line(error)}): name another place") from error


def _new(contents: Contents) -> pl.DataFrame:
    flagged = contents.prompts
    return flagged.filter(finding="new") if "finding" in flagged.columns else flagged


def _caption(row: Mapping[str, object]) -> str:
    return printable(visible_text(str(row["text"]), LONGEST))


def _places(row: Mapping[str, object], contents: Contents) -> list[tuple[str, int]]:
    bearing = contents.flagged.filter(prompt_id=row["prompt_id"])
    return list(bearing.select("file", "row").head(PLACES).iter_rows())


def _numbers(row: Mapping[str, Any], contents: Contents) -> dict[str, float]:
    wanted = ("rank", contents.score, "p_value", "q_value", "n_rows")
    return {name: row[name] for name in wanted if row.get(name) is not None}


def _case(row: Mapping[str, object], contents: Contents) -> Element:
    named = f"{shown(str(row['prompt_id']))} {_caption(row)}"
    case = Element("testcase", classname=f"overscan.{contents.score}", name=named)
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in _numbers(row, contents).items())
    failure = SubElement(case, "failure", type=RULE, message=f"likely memorized, to be verified: {numbers}")
    failure.text = "\n".join(f"{printable(file)} row {number}" for file, number in _places(row, contents))
    return case


def _result(row: Mapping[str, object], contents: Contents) -> dict[str, object]:
    places = _places(row, contents)
    return {
        "ruleId": RULE,
        "ruleIndex": 0,
        "level": "warning",
        "baselineState": "new",
        "message": {"text": f"likely memorized, to be verified: {_caption(row)}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(file)}}} for file in dict(places)],
        "partialFingerprints": {"promptId/v1": row["prompt_id"]},
        "properties": {**_numbers(row, contents), "rows": [{"file": file, "row": number} for file, number in places]},
    }


def _uri(file: str) -> str:
    return Path(file).as_uri() if Path(file).is_absolute() else file
