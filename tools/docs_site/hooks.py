"""For the site: pages that lie elsewhere or are made of what they describe, and links that hold on it.

The command line's page comes from click itself; contributing, security and changelog are the repository's files; the
recipes stand whole on a page of their own.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from scanner.cli import SECTIONS, cli
from scanner.cli.config import config as config_group

ROOT = Path(__file__).parent.parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"\]\((\.\./)?([^)#:]+)(#[^)]*)?\)")
NAMED = re.compile(r"\[[\w./-]+\.md\]\(([^)#:]+)(#[^)]*)?\)")  # a link whose words are the file's name
RECIPES = {".sh": "sh", ".py": "python", ".yml": "yaml", ".toml": "toml", "": "text", ".gpu": "dockerfile"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file of docs/ holds."""
    made = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in PAGES.items()}
    made |= {
        "cli.md": "\n".join(commands()),
        "recipes.md": "\n".join(recipes()),
        "NOTICE.txt": (ROOT / "NOTICE").read_text(encoding="utf-8"),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they hold in the repository, to where the same lies on the site."""
    outside = page.file.src_uri in PAGES.values()  # a page that lies above docs/ in the repository
    links = LINK.sub(lambda found: f"]({moved(found[2], found[1] is not None or outside)}{found[3] or ''})", markdown)
    titles = dict(titled(config["nav"]))
    return NAMED.sub(lambda found: f"[{titles[found[1]]}]({found[1]}{found[2] or ''})", links)


def titled(nav: list[Any]) -> Iterator[tuple[str, str]]:
    """(page, title) of all that a table of contents lists.

    >>> list(titled([{"A": "a.md"}, {"More": [{"B": "b.md"}]}]))
    [('a.md', 'A'), ('b.md', 'B')]
    """
    for entry in nav:
        for title, under in entry.items():
            yield from titled(under) if isinstance(under, list) else [(under, title)]


def moved(path: str, above: bool) -> str:
    """The place on the site of a path from docs/, or, `above`, from the repository's root.

    >>> moved("CONTRIBUTING.md", above=True), moved("docs/a.md", above=True), moved("a.md", above=False)
    ('contributing.md', 'a.md', 'a.md')
    """
    if not above:
        return path
    if path.startswith("recipes"):
        name = path.removeprefix("recipes").strip("/")
        return f"recipes.md#{anchor(name)}" if name else "recipes.md"
    return PAGES.get(path, {"NOTICE": "NOTICE.txt", "README.md": "index.md"}.get(path, path.removeprefix("docs/")))


def anchor(name: str) -> str:
    """Of a recipe's heading."""
    return name.lower().replace(".", "")


def recipes() -> Iterator[str]:
    """Every recipe, whole."""
    yield "# Recipes\n\nFiles to start from. `tests/test_recipes.py` runs their commands, but for Docker's images.\n"
    for path in sorted((ROOT / "recipes").iterdir()):
        yield f"## {path.name} {{ #{anchor(path.name)} }}\n"
        yield f"```{RECIPES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8')}```\n"


def commands() -> Iterator[str]:
    """Every command in the order of work: what it does, its usage, options and examples, in click's own words."""
    yield "# Command line\n\nWhat `overscan COMMAND --help` says. Options can also be set by a file or the environment:"
    yield "[settings](nights.md#settings).\n"
    root = click.Context(cli, info_name="overscan", **cli.context_settings)
    for title, section in SECTIONS.items():
        yield f"## {title}\n"
        for command in section:
            shown = config_group.commands["show"] if command is config_group else command
            yield from _command(command, root)
            if shown is not command:
                yield from _command(shown, click.Context(config_group, info_name="config", parent=root))


def _command(command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent, terminal_width=100)
    yield f"### {context.command_path}\n\n{plain(cleandoc(command.help or ''))}\n"
    formatter = context.make_formatter()
    command.format_usage(context, formatter)
    click.Command.format_options(command, context, formatter)
    yield f"```text\n{formatter.getvalue().rstrip()}\n```\n"
    examples = (command.epilog or "").splitlines()[2:]
    if examples:
        yield "```sh\n" + "\n".join(line.strip() for line in examples) + "\n```\n"


def plain(text: str) -> str:
    """A help text as Markdown: nothing of it is markup but `code`."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", text)
