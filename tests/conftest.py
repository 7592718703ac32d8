import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from engines import open_bundle
from scanner.demo import BUNDLE

CHECKPOINTS = {name: Path(__file__).parent / "checkpoints" / name for name in ("demo-v", "demo-epsilon")}


@pytest.fixture(scope="session")
def bundle():
    return open_bundle(BUNDLE)


@pytest.fixture(scope="session")
def epsilon_bundle_path(tmp_path_factory):
    from engines.export import export

    path = tmp_path_factory.mktemp("bundles") / "epsilon"
    export(CHECKPOINTS["demo-epsilon"], path)
    return path
