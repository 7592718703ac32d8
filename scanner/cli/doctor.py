"""`overscan doctor`."""

import sys
from dataclasses import asdict
from json import dumps

import click
from rich.text import Text

from scanner import doctor as checks
from scanner.cli.console import out_console
from scanner.cli.options import backend, examples
from scanner.cli.places import ANY_PLACE
from scanner.places import Place

COLOURS: dict[checks.Status, str] = {"ok": "green", "note": "yellow", "problem": "bold red"}


@click.command(
    epilog=examples(
        "overscan doctor",
        "overscan doctor -m bundle -s store --backend openvino",
    )
)
@click.option("-m", "--model", type=ANY_PLACE, help="Bundle or checkpoint to try.  [default: the bundled model]")
@click.option("-s", "--store", type=ANY_PLACE, help="Store to look at.")
@backend
@click.option("--json", is_flag=True, help="Print JSON.")
def doctor(model: Place | None, store: Place | None, backend: str, json: bool) -> None:
    """Tell what is wrong with this installation, and what to do about it.

    The exit code is 4 where a scan with these options could not run, or could not be relied on.
    """
    findings = checks.examine(checks.Asked(model, store, backend))
    problems = sum(finding.status == "problem" for finding in findings)
    if json:
        click.echo(dumps({"problems": problems, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        _print(findings)
    sys.exit(4 if problems else 0)


def _print(findings: list[checks.Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = Text(f"{finding.status:8}", COLOURS[finding.status])
        out_console.print(mark.append(f"{finding.name:{width}}  {finding.found}", "default"), soft_wrap=True)
        if finding.remedy:
            out_console.print(Text(f"{'':8}{'':{width}}  -> {finding.remedy}"), soft_wrap=True)
