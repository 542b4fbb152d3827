# The commands are: make reproduce, make test. For maintainers: make check, soak, notebooks, figures, front, pages, site,
# bench, links, clean.
# Nothing here needs git, and every path is relative, so a folder with spaces in its name works.

PYTHON ?= python3
# Arguments to pip for installing torch alone, to choose its CPU build or a CUDA build: see INSTALL.
TORCH_PIP_ARGS ?=
# Arguments to dufm reproduce, and the notebooks to refresh, such as NB="57 58".
ARGS ?=
NB ?=

PY := .venv/bin/python
STAMP := .venv/installed
# One thread and no progress bars: the outputs that are compared were made so.
PLAIN := TQDM_DISABLE=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 DUFM_JOBS=1

.PHONY: reproduce test check soak lint nbval notebooks figures front pages site bench links setup clean
.DELETE_ON_ERROR:

reproduce: $(STAMP)
	@$(PY) -m dufm reproduce $(ARGS)

test: lint
	$(PLAIN) $(PY) -m pytest tests -n 2 -q -rs -p no:cacheprovider
	@$(MAKE) --no-print-directory nbval

check: lint
	$(PLAIN) $(PY) -m pytest tests -n 2 -q -m "not slow and not soak"

# Longer fuzz, more faults and all exercises: what make test has no time for.
soak: $(STAMP)
	$(PLAIN) $(PY) -m pytest tests -q -m soak

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m mypy

# The committed outputs against a fresh run, which writes elsewhere.
nbval: $(STAMP)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PLAIN) DUFM_OUT="$$folder" $(PY) -m pytest --nbval --nbval-current-env -n 2 --dist loadfile \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg -q -p no:cacheprovider notebooks

notebooks: $(STAMP)
	$(PY) -m dufm.companion.maintain notebooks $(NB)

figures: $(STAMP)
	$(PY) -m dufm.companion.maintain figures $(NB)

# The moving picture of the front page, from the flow itself: a minute.
front: $(STAMP)
	$(PY) figures/front.py

pages: $(STAMP)
	$(PY) -m dufm.companion.maintain pages

# A warning is an error: a link that leads nowhere, a name that is not documented.
site: $(STAMP)
	@$(PY) docs/assemble.py out/site-source
	@$(PY) -m sphinx -W --keep-going -q -c docs -d out/site-doctrees out/site-source out/site
	@echo "the site is out/site/index.html"

bench: $(STAMP)
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; $(PY) $$bench || exit 1; done

links: $(STAMP)
	$(PY) -m dufm.companion.maintain links $(REPO)

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dufm needs Python 3.11 or later; choose one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes, once)"
	@$(PY) -m pip install -q --disable-pip-version-check $(TORCH_PIP_ARGS) "$$(grep '^torch==' requirements.txt)"
	@$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

clean:
	rm -rf .venv out build dufm.egg-info .pytest_cache .ruff_cache .mypy_cache
