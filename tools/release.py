"""Make a checkout ready to be built for an index: links of the package and its page lead to the repository it is from.

    python tools/release.py --repository https://github.com/OWNER/NAME --tag v0.1.0

Changes pyproject.toml and README.md of the working tree, which is the release workflow's own. Nothing of a repository's
address stands in the sources: a fork's packages lead to the fork.
"""

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
URLS = "[project.urls]\n"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")  # a relative one, of Markdown
SOURCE = re.compile(r'(<img [^>]*src=")(?!https?://)([^"]+)"')  # an image, of HTML


def with_links(page: str, repository: str, tag: str) -> str:
    """Markdown whose relative links and images lead to the repository at this tag.

    >>> with_links("see [docs](docs/a.md) and ![p](docs/p.png)", "https://host/o/n", "v1")
    'see [docs](https://host/o/n/blob/v1/docs/a.md) and ![p](https://host/o/n/raw/v1/docs/p.png)'
    """

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({repository}/{kind}/{tag}/{found[3]})"

    return SOURCE.sub(rf'\g<1>{repository}/raw/{tag}/\g<2>"', LINK.sub(absolute, page))


def with_urls(pyproject: str, repository: str, tag: str) -> str:
    """pyproject.toml whose package leads to its repository. Raises SystemExit where the tag is another version's."""
    version = tomllib.loads(pyproject)["project"]["version"]
    if tag != f"v{version}":
        raise SystemExit(f"tag {tag}: pyproject.toml has version {version}, needed v{version}")
    urls = {
        "Repository": repository,
        "Documentation": f"{repository}/blob/{tag}/docs/index.md",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    assert URLS in pyproject
    return pyproject.replace(URLS, URLS + "".join(f'{name} = "{url}"\n' for name, url in urls.items()))


def main() -> None:
    """Change the two files in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", required=True, help="https address, without a slash at its end")
    parser.add_argument("--tag", required=True, help="v and the version")
    asked = parser.parse_args()
    for name, change in {"pyproject.toml": with_urls, "README.md": with_links}.items():
        path = ROOT / name
        path.write_text(change(path.read_text(encoding="utf-8"), asked.repository, asked.tag), encoding="utf-8")


if __name__ == "__main__":
    main()
