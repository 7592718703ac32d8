"""`overscan config`, and the settings of every command from a configuration file."""

import copy
import os
from collections.abc import Iterator
from difflib import get_close_matches
from json import dumps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from scanner.cli import options, places, settings
from scanner.errors import ConfigError
from scanner.pages.safe import printable

SCANS = ("scan", "calibrate")  # commands whose settings make a scan_id


def load(context: click.Context, parameter: click.Parameter, file: Path | None) -> Path | None:
    """Fill click's default_map from `--config` or from the working directory's file. Raises ConfigError.

    Also for a variable of the environment that is named as a setting and is none: click would not see it.
    """
    if not context.resilient_parsing:
        _check_environment(context)
    found = settings.find_file(Path()) if file is None else file
    if found is not None and not context.resilient_parsing:
        assert isinstance(context.command, click.Group)
        commands = configurable(context.command)
        known = {name: [str(item.name) for item in command.params] for name, command in commands.items()}
        by_command = settings.load(found, known)
        for name, command in commands.items():
            _check(found, command, by_command[name])
        context.default_map = by_command
        click.echo(f"settings from {printable(str(found))}{' (found here)' if file is None else ''}", err=True)
    return found


def configurable(group: click.Group) -> dict[str, click.Command]:
    """The commands that a settings file may set options of."""
    return {name: command for name, command in group.commands.items() if name not in ("config", "init")}


def _check_environment(context: click.Context) -> None:
    prefix = f"{context.auto_envvar_prefix}_"
    known = [name.removeprefix(prefix) for name in _variables(context.command, prefix[:-1])]
    given = sorted(name.removeprefix(prefix) for name in os.environ if name.startswith(prefix))
    for name in (name for name in given if name not in known):
        nearest = "".join(f"; the nearest is {prefix}{match}" for match in get_close_matches(name, known, 1))
        raise ConfigError(
            f"{prefix}{name} in the environment: no command has such an option{nearest}. Variables are named after "
            "command and option, as OVERSCAN_SCAN_SEEDS: rename or unset it"
        )


def _variables(command: click.Command, prefix: str) -> Iterator[str]:
    """Environment variables that set a command's options, as click names them; arguments have none."""
    for item in command.params:
        if isinstance(item, click.Option) and item.allow_from_autoenv:
            yield f"{prefix}_{str(item.name).upper()}"
    for name, sub in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _variables(sub, f"{prefix}_{name.upper().replace('-', '_')}")


def _check(file: Path, command: click.Command, values: dict[str, Any]) -> None:
    """Refuse values that click would bend to an option's type, or fail on. Raises ConfigError."""
    for parameter in command.params:
        value = values.get(str(parameter.name))
        if value is not None and not _fits(parameter, value):
            needed = "a list of texts" if _several(parameter) else f"a value of type {parameter.type.name}"
            raise ConfigError(f"{file}: {command.name}.{parameter.name} is {value!r}; needed {needed}")


def _several(parameter: click.Parameter) -> bool:
    return parameter.nargs == -1 or parameter.multiple


def _fits(parameter: click.Parameter, value: Any) -> bool:
    if _several(parameter):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    switch = isinstance(parameter.type, click.types.BoolParamType)
    if isinstance(value, bool):
        return switch
    if isinstance(value, int):
        return not switch and not isinstance(parameter.type, click.Path)
    return isinstance(value, str) or (
        isinstance(value, float) and isinstance(parameter.type, click.types.FloatParamType)
    )


option = click.option(
    "--config",
    type=places.Place(exists=True, dir_okay=False),
    callback=load,
    is_eager=True,
    help="Settings file.  [default: overscan.toml, or [tool.overscan] of pyproject.toml, here]",
)


@click.group(invoke_without_command=True, epilog=options.examples("overscan config", "overscan config show report"))
@click.pass_context
def config(context: click.Context) -> None:
    """Show the settings that commands take from a settings file and the environment, and where each comes from."""
    if context.invoked_subcommand is None:
        for line in _in_force(context.find_root()):
            click.echo(line)


def _in_force(root: click.Context) -> Iterator[str]:
    """A line per setting that is no default: its value, where it comes from, and the commands that take it."""
    assert isinstance(root.command, click.Group)
    takers: dict[tuple[str, str, str], list[str]] = {}
    for name, command in configurable(root.command).items():
        for parameter in command.params:
            for value, source in _given(root, name, parameter):
                takers.setdefault((str(parameter.name), dumps(value, ensure_ascii=False), source), []).append(name)
    if not takers:
        yield "every setting is the default: no settings file is here (`overscan init` writes one), no variable is set"
        return
    rows = [(*row, ", ".join(names)) for row, names in takers.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, [*widths, 0], strict=True))
    yield "all else is the default: overscan config show COMMAND"


def _given(root: click.Context, command: str, parameter: click.Parameter) -> Iterator[tuple[Any, str]]:
    """The value of a variable, or else of the settings file, and which of them."""
    variable = f"{root.auto_envvar_prefix}_{command.upper()}_{str(parameter.name).upper()}"
    values = (root.default_map or {}).get(command) or {}
    if isinstance(parameter, click.Option) and parameter.allow_from_autoenv and os.environ.get(variable):
        yield os.environ[variable], variable
    elif parameter.name in values:
        yield _plain(values[parameter.name]), str(root.params["config"])


@config.command(
    epilog=options.examples("overscan config show", "overscan config show --json report --top 5"),
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--json", is_flag=True, help="Print JSON.")
@click.argument("command", default="scan")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def show(context: click.Context, json: bool, command: str, arguments: tuple[str, ...]) -> None:
    """Print the settings that COMMAND [default: scan] with ARGUMENTS would use, and where each comes from.

    For a scan with a model, the scan_id too: it says which stored scores are the same.
    """
    root = context.find_root()
    rows, scan_id = resolve(root, command, list(arguments))
    if json:
        facts = {"file": root.params["config"] and str(root.params["config"]), "settings": rows, "scan_id": scan_id}
        click.echo(dumps(facts, indent=1))
        return
    lines = [(name, dumps(row["value"], ensure_ascii=False), row["from"]) for name, row in rows.items()]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    for name, value, source in lines:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    if scan_id is not None:
        click.echo(f"scan_id {scan_id}")


def resolve(root: click.Context, name: str, arguments: list[str]) -> tuple[dict[str, dict[str, Any]], str | None]:
    """What click makes of a command's settings: {name: {value, from}}, and the scan_id of a scan with a model."""
    assert isinstance(root.command, click.Group)
    command = root.command.get_command(root, name)
    if command is None:
        raise click.UsageError(f"no command {name!r}; there are {', '.join(root.command.commands)}", root)
    with _optional(command).make_context(name, arguments, parent=root) as context:
        names = [str(parameter.name) for parameter in command.params]
        rows = {name: {"value": _plain(context.params[name]), "from": _source(context, name)} for name in names}
        return rows, _scan_id(context.params) if name in SCANS else None


def _optional(command: click.Command) -> click.Command:
    """The command with nothing required, so that it can be resolved without being run."""
    parameters = [copy.copy(parameter) for parameter in command.params]
    for parameter in parameters:
        parameter.required = False
    return click.Command(command.name, params=parameters)


def _source(context: click.Context, key: str) -> str:
    source = context.get_parameter_source(key)
    if source is ParameterSource.ENVIRONMENT:
        return f"{context.auto_envvar_prefix}_{key.upper()}"
    if source is ParameterSource.DEFAULT_MAP:
        return str(context.find_root().params["config"])
    return "command line" if source is ParameterSource.COMMANDLINE else "default"


def _scan_id(values: dict[str, Any]) -> str | None:
    if values["model"] is None or values.get("screen") is not None:  # a screened scan's depends on its threshold
        return None
    names = (
        "reference", "base_model", "seeds", "first_steps", "timesteps", "prior_noises", "guidance_scale", "batch_size",
        "backend", "precision",
    )  # fmt: skip
    return options.scan_model(values["model"], **{name: values[name] for name in names}).scan_id


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
