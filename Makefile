# make demo   the whole product on this machine: broker, model, real data, live answers
# make test   lint, types and every test
# make help   the other targets
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Another CMAKE_ARGS (a CUDA build, say) is another installation.
READY := $(VENV)/.flashfeed-ready-$(firstword $(shell printf '%s' '$(CMAKE_ARGS)' | cksum))
ROOMS := models codecs engine heads agents bridge cli
export FLASHFEED_CACHE ?= $(HOME)/.cache/flashfeed

.PHONY: kafka kafka3 chaos dashboards fuzz schemas demo test soak lint types check-python bench clients peers quality broker help clean setup
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' $(MAKEFILE_LIST)

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flashfeed needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	@for tool in cmake c++; do command -v $$tool >/dev/null || { echo "flashfeed compiles llama.cpp and needs $$tool; please install it"; exit 1; }; done

# make setup  create .venv and install everything in it (done by the targets that need it)
setup: $(READY)

$(READY): requirements.lock pyproject.toml $(wildcard engine/build/*) | check-python
	@echo "flashfeed: setting up $(VENV) (llama.cpp first: minutes the first time on a machine, seconds after that)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python engine/build/install.py requirements.lock
	@echo "flashfeed: installing the locked packages (about half a minute)"
	@grep -v '^llama-cpp-python' requirements.lock > $(VENV)/packages.lock
	@$(BIN)/python -m pip --disable-pip-version-check install -q --no-deps -r $(VENV)/packages.lock
	@$(BIN)/python -m pip --disable-pip-version-check install -q --no-deps -e .
	@rm -f $(VENV)/.flashfeed-ready*
	@touch $@

# make demo   see above
demo: $(READY)
	@$(BIN)/flashfeed demo

# mypy reads the import names, which differ from the folders, through these links.
build/src/flashfeed: $(READY)
	@mkdir -p $@ && for room in $(ROOMS); do ln -sfn ../../../$$room $@/$$room; done
	@ln -sfn ../../../bridge/client $@/client

# make lint   ruff, formatting included
lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

# make types  mypy --strict over the whole package
types: $(READY) build/src/flashfeed
	@$(BIN)/mypy --strict -p flashfeed

# make test   see above
test: lint types
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not alone'
	@$(BIN)/python -m pytest -m alone

# make soak   the engine's long tests: 1,000 windows, 2,000 operations (half an hour)
soak: $(READY)
	@$(BIN)/python tests/soak.py

# make fuzz   100,000 broken messages, then 20,000 requests and frames (half an hour and more)
fuzz: $(READY)
	@$(BIN)/python tests/codecs/fuzz_codecs.py
	@$(BIN)/python tests/fuzz/run_fuzz.py

# make peers  compile llama-server, which bench/engine.py measures against (minutes, once)
peers: $(READY)
	@$(BIN)/python bench/peers.py

# make bench  every benchmark; each prints a table and one JSON line
bench: $(READY) peers
	@for b in codecs tokens update hidden engine step_size transport scale pipeline bridge metrics traces; do echo "== bench/$$b.py"; $(BIN)/python bench/$$b.py || exit 1; done

# make quality  what answers know of real data, with their scores (an hour; goes on if stopped)
quality: $(READY)
	@$(BIN)/python bench/quality.py

# make broker run the embedded broker alone
broker: $(READY)
	@$(BIN)/flashfeed broker

# make kafka  run one Apache Kafka node (from Maven Central; wants Java 17 and Maven)
kafka: $(READY)
	@$(BIN)/python tests/kafka_cluster.py 1

# make kafka3 run three of them, as one cluster
kafka3: $(READY)
	@$(BIN)/python tests/kafka_cluster.py 3

# make chaos  workers, brokers, network and disks fail at random for 20 minutes; every record compared
chaos: $(READY)
	@$(BIN)/python bench/chaos.py --minutes 20

# make dashboards  write dashboards/json from dashboards/*.py
dashboards: $(READY)
	@$(BIN)/python -m dashboards.build

# make clients run every published client's methods, write docs/CLIENTS.md (Node.js wanted)
clients: $(READY)
	@$(BIN)/python -m pytest tests/bridge -m client --write-clients

# make clean  remove .venv and build/ (the cache of wheels and models stays)
clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make schemas write models/schemas/*.json again from the event types
schemas: $(READY)
	@$(BIN)/python -c 'import orjson, pathlib; from flashfeed.models import event_schemas as e; \
	[pathlib.Path(f"models/schemas/{n}.json").write_bytes(orjson.dumps(e.event_schema(n), option=orjson.OPT_INDENT_2) + b"\n") for n in e.EVENT_TYPES]'
