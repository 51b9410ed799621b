# Everything from nothing: Python 3.11, make and a package index are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Thread counts are read when Python starts (a later torch.set_num_threads leaves busy threads).
export OMP_NUM_THREADS ?= 2
# Waiting threads sleep: spinning ones make everything slow once a core is shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: env env-sevenn env-nequix env-matgl2 bench test full fuzz perf scale lint leaderboard site

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
		-e '.[all]'
	touch $@

# SevenNet and Nequix need another e3nn than mace-torch pins: an environment of their own, in which
# their worker processes run; with the T5's packages, for `t5+sevennet-0`. Nequix asks for JAX with
# CUDA, which it does not need here.
env-sevenn: .venv-sevenn/.installed
env-nequix: env-sevenn

.venv-sevenn/.installed: pyproject.toml constraints-sevenn.txt
	test -x .venv-sevenn/bin/python || $(PYTHON) -m venv .venv-sevenn
	.venv-sevenn/bin/python -m pip install --disable-pip-version-check --quiet \
		-c constraints-sevenn.txt torch
	.venv-sevenn/bin/python -m pip install --disable-pip-version-check --quiet \
		-c constraints-sevenn.txt -e '.[sevenn,nequix,t5]'
	.venv-sevenn/bin/python -m pip install --disable-pip-version-check --quiet --no-deps \
		-c constraints-sevenn.txt nequix
	touch $@

# The last matgl that reads the weights of 2021 and 2025.1 right; its M3GNet needs dgl.
env-matgl2: .venv-matgl2/.installed

.venv-matgl2/.installed: pyproject.toml constraints-matgl2.txt
	test -x .venv-matgl2/bin/python || $(PYTHON) -m venv .venv-matgl2
	.venv-matgl2/bin/python -m pip install --disable-pip-version-check --quiet \
		-c constraints-matgl2.txt torch
	.venv-matgl2/bin/python -m pip install --disable-pip-version-check --quiet \
		-c constraints-matgl2.txt -e '.[matgl2,t5]'
	touch $@

bench: env
	$(BIN)/python -m benchmarks.run --models identity,t5,mace,chgnet

# As many processes as cores that may be used; one thread each, or they wait for one another.
TEST_JOBS ?= 2
test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

full: env
	$(BIN)/python -m pytest -m full --timeout 3600

# Mutants of every kind of file that is read; FUZZ_CASES=20000 for more.
FUZZ_CASES ?= 2000
fuzz: env
	FUZZ_CASES=$(FUZZ_CASES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz --timeout 7200

perf: env
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[perf]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/perf --override-ini addopts=-q

scale: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/perf/test_reader.py --override-ini addopts=-q -s

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

leaderboard: env
	$(BIN)/python -m leaderboard --published $(CHECK)

# The published boards as pages. The packages from npm are fetched once; without npm the pages are
# whole but for the 3D view, the search and the scatter.
SITE ?= site
site: env
	-$(BIN)/python -m leaderboard.site.packages
	$(BIN)/python -m leaderboard --published --site $(SITE)
