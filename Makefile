PYTHON ?= python3
WORKERS ?= 2
# each worker holds itself to one core, and takes over what another has not begun
PYTEST = .venv/bin/pytest -n $(WORKERS) --dist worksteal
export TRANSFORMERS_OFFLINE = 1
export HF_HUB_OFFLINE = 1

.PHONY: demo test nightly docs dist
demo: .venv/cpu  ## install with CPU and images, scan the bundled captions with the bundled model
	.venv/bin/overscan demo

test: .venv/dev  ## install with the development extra, then every check
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTEST)

nightly: .venv/dev  ## every test, the slow ones too
	$(PYTEST) -m "slow or not slow"

docs: .venv/dev  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	.venv/bin/python -m tools.docs_site.check build/site

dist: .venv/bin/python  ## a wheel and an sdist, checked as an index checks them
	.venv/bin/python -m pip install --quiet --disable-pip-version-check 'build>=1.2' 'twine>=6'
	rm -rf dist
	.venv/bin/python -m build
	.venv/bin/twine check --strict dist/*

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "overscan needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/cpu: .venv/bin/python pyproject.toml
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,images]'
	touch $@

.venv/dev: .venv/bin/python pyproject.toml
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ .venv/cpu
