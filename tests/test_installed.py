"""The line that adds an extra, by how overscan was installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from engines import installed
from engines.installed import install_line, repair_line, target

CLONE = '{"dir_info": {"editable": true}, "url": "file:///srv/my%20clones/overscan"}'


@pytest.mark.parametrize(
    ("origin", "extras", "said"),
    [
        (None, ("ray",), '"overscan[ray]"'),
        (None, (), "overscan"),
        (CLONE, ("cpu", "export"), '-e "/srv/my clones/overscan[cpu,export]"'),
        (CLONE, (), '-e "/srv/my clones/overscan"'),
        ('{"dir_info": {}, "url": "file:///src"}', ("cpu",), '"/src[cpu]"'),
        (
            '{"archive_info": {"hash": "sha256=0"}, "url": "file:///w/overscan-0.1.0-py3-none-any.whl"}',
            ("gpu",),
            '"/w/overscan-0.1.0-py3-none-any.whl[gpu]"',
        ),
        (
            '{"archive_info": {}, "url": "https://files.test/overscan-0.1.0-py3-none-any.whl"}',
            ("gpu",),
            '"overscan[gpu] @ https://files.test/overscan-0.1.0-py3-none-any.whl"',
        ),
        (
            '{"url": "https://git.test/o.git", "vcs_info": {"vcs": "git", "requested_revision": "v1"}}',
            ("int8",),
            '"overscan[int8] @ git+https://git.test/o.git@v1"',
        ),
        (
            '{"url": "file:///srv/o", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            (),
            '"overscan @ git+file:///srv/o@abc"',
        ),
    ],
)
def test_an_extra_comes_from_where_overscan_came_from(origin, extras, said):
    assert target(origin, extras) == said


def test_sources_that_nobody_installed_are_a_clone(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installed, "distribution", missing)
    root = Path(installed.__file__).parent.parent
    assert install_line("ray") == f'pip install -e "{root}[ray]"'
    assert install_line(force=True) == f'pip install --force-reinstall -e "{root}"'
    assert repair_line() == f'git -C "{root}" checkout -- scanner engines'


def test_what_an_index_gave_is_repaired_from_there(monkeypatch):
    monkeypatch.setattr(installed, "_origin", lambda: None)
    assert repair_line() == "pip install --force-reinstall overscan"


def test_this_installation_names_its_own_origin():
    origin = distribution("overscan").read_text("direct_url.json")
    assert install_line("ray") == f"pip install {target(origin, ('ray',))}"
