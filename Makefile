# make study · test · lab · notebooks · bench · slow · fuzz · clean   (README.md says what each does)
SHELL := /bin/bash
PROFILE ?= mini
BACKBONES ?=
INITS ?=
METHODS ?=
SEEDS ?=
DATA ?=
PYTHON ?= python3
TESTERS ?= 2    # processes that test at a time

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Threads that wait for each other spin for a while before they sleep (GNU OpenMP). On a machine that also does something else,
# long spinning made a training seven times slower; this much keeps two thirds of its speed there, and costs 7% where it is alone.
export GOMP_SPINCOUNT ?= 100000
ifneq ($(DATA),)
export SARCLIP_DATA := $(if $(filter /%,$(firstword $(DATA))),,$(CURDIR)/)$(DATA)
endif
# Modules are compiled when they are first imported, and kept: where the environment forbids keeping them (containers often do),
# each of some hundred processes would compile them anew.
unexport PYTHONDONTWRITEBYTECODE
# What a user may set reaches commands through the environment, where a shell reads it as one word and runs none of it.
export PROFILE BACKBONES INITS METHODS SEEDS

NUMBERED := $(sort $(wildcard nbs/*.ipynb))
EXAMPLES := $(sort $(wildcard nbs/examples/*.ipynb))    # after the numbered ones, whose model they use
API := $(sort $(wildcard nbs/api/*/*.ipynb nbs/api/*/*/*.ipynb))
IN_PLACE := jupyter execute --inplace
# The state of a view that only a browser can draw is megabytes; nothing of a notebook's own metadata but its kernel is kept.
NO_WIDGETS := --ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.clear_cell_metadata=False \
  --ClearMetadataPreprocessor.preserve_nb_metadata_mask=kernelspec

# Other people's readers and metrics, which tests compare ours with; what they need beyond what is there, those parts do not use.
ORACLES := clip-benchmark==1.6.2 torchcvnn==0.10.0

.PHONY: study test pytest slow fuzz lab notebooks bench clean
.DELETE_ON_ERROR:

study: .venv/ready
	snakemake --cores all --nolock --rerun-incomplete --keep-going --quiet host reason rules \
	  --config profile="$$PROFILE" backbones="$$BACKBONES" inits="$$INITS" \
	  methods="$$METHODS" seeds="$$SEEDS"
	@sarclip-report "$$PROFILE"

# nbdev_test runs every notebook of the module; the numbered ones are run once, by papermill, as the smallest study
# (tests/profiles), which pytest makes and its tests share. Both run side by side, so that no core waits; pytest's output is
# kept until the end, so that its summary is read last.
test: export MPLBACKEND := Agg
test: export OMP_NUM_THREADS := 1
test: export SARCLIP_RUNS := $(CURDIR)/runs/nbdev_test
test: .venv/ready
	rm -rf runs/nbdev_test && mkdir -p runs/nbdev_test
	python -m pytest tests -m "not slow" -n $(TESTERS) --dist loadgroup > runs/nbdev_test/pytest.log 2>&1 & pytest=$$!; \
	nbdev_test --path nbs/api --n_workers 2 --timing; api=$$?; \
	wait $$pytest; tests=$$?; cat runs/nbdev_test/pytest.log; exit $$((api | tests))

slow: .venv/ready
	python -m pytest tests -m slow -s

# MUTANTS of each format; a failure is printed with the words that repeat it.
MUTANTS ?= 2000
fuzz: .venv/ready
	python tests/fuzz/fuzz.py --mutants $(MUTANTS)

lab: .venv/ready
	jupyter lab nbs $(if $(filter 0,$(shell id -u)),--allow-root)    # as root, in a container say, Jupyter wants to be asked

notebooks: export SARCLIP_RUNS := $(CURDIR)/runs/notebooks
notebooks: .venv/ready
	rm -rf runs/notebooks
	for notebook in $(NUMBERED) $(EXAMPLES) $(API); do $(IN_PLACE) $$notebook || exit 1; done
	jupyter nbconvert --log-level ERROR --to notebook --inplace --coalesce-streams $(NO_WIDGETS) $(NUMBERED) $(EXAMPLES) $(API)    # a progress bar's last state
	nbdev_clean

bench: .venv/ready
	for script in bench/*.py; do python $$script || exit 1; done

clean:
	rm -rf runs .snakemake .venv .pytest_cache .hypothesis *.egg-info

# Made anew when what is installed changes; a broken install leaves no mark and is begun again.
# What is pinned needs no resolving, so two processes unpack it side by side; pip then adds what this platform needs besides.
# All 20,000 modules compiled ahead would take as long as unpacking them; a few thousand are ever imported.
PIP_INSTALL := .venv/bin/pip install --quiet --disable-pip-version-check --no-warn-conflicts --no-compile
.venv/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	{ grep -v '^#' constraints.txt; printf '%s\n' $(ORACLES); } | xargs -P 2 -n 40 $(PIP_INSTALL) --no-deps
	$(PIP_INSTALL) --constraint constraints.txt --editable ".[dev]"
	touch $@
