# Every target builds what it needs first; the second time it is there already.
# CI's matrix is these targets: nothing is tested there that cannot be tested here.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
MODEL ?= tensorflow_model.keras
DATA ?= synthetic
DATA_DIR ?=
OUTPUT ?= out
SIGSTORE ?= stand-in
# Of those that `make services` builds, the ones that are wanted; none: all.
SERVICES ?=
# On two cores: many tests wait for a server or a limit, and one worker is at each framework meanwhile.
WORKERS ?= 4
parallel = -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# Settings of Python's are not for what runs here; -I keeps them from the first process, too.
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONSTARTUP PYTHONUSERBASE PYTHONPLATLIBDIR
environment = $$($(PYTHON) -I actions/setup/environment.py $(1))

.PHONY: help
help: ## Show the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Train, prove, sign and verify a model by train.yml on this machine (MODEL=, DATA_DIR=, OUTPUT=, SIGSTORE=real)
	@bin=$(call environment,demo); \
	"$$bin/python" -m sandbox demo --model "$(MODEL)" --dataset "$(DATA)" $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") --output "$(OUTPUT)" --sigstore "$(SIGSTORE)"

.PHONY: demo-tekton
demo-tekton: ## Run the Tekton pipeline of slsa_for_models/gcp on this machine (MODEL=, PROJECT=, OUTPUT=)
	@bin=$(call environment,dev); "$$bin/python" -m sandbox.clusters.tekton_demo --model "$(MODEL)" $(if $(PROJECT),--project "$(PROJECT)") --output "$(OUTPUT)/tekton"

.PHONY: demo-kubeflow
demo-kubeflow: ## Run the Kubeflow pipeline of slsa_for_models/kubeflow on this machine (MODEL=, PROJECT=, OUTPUT=)
	@bin=$(call environment,dev); "$$bin/python" -m sandbox.clusters.kubeflow_demo --model "$(MODEL)" $(if $(PROJECT),--project "$(PROJECT)") --output "$(OUTPUT)/kubeflow"

# Each test in the environment that it needs. ARGS goes to pytest; the last line counts them all.
tests = $(PYTHON) -I tests/run.py

.PHONY: test
test: ## Run the tests (every area, quick cases)
	@$(tests) $(parallel) -m "not full" $(ARGS)

.PHONY: test-full
test-full: ## Run all tests, with every format through the workflow
	@$(tests) $(parallel) $(ARGS)

.PHONY: test-base
test-base: ## Run the quick tests that need no framework, on this Python and system
	@$(tests) --roles test $(parallel) -m "not full and not slow" tests/model_signing tests/slsa_for_models $(ARGS)

.PHONY: services
services: ## Build the real Sigstore, cosign, a registry and Kyverno, once (SERVICES=; needs Go)
	@$(PYTHON) -m sandbox services $(SERVICES)

.PHONY: test-services
test-services: ## Run the tests of all that meets Sigstore on the real services (needs Go)
	@$(MAKE) services >/dev/null; exec $(tests) --roles dev $(parallel) --sigstore=real $(ARGS)

.PHONY: lint
lint: ## Check style, types, workflows and actions
	@bin=$(call environment,lint); types=$(call environment,test-pytorch); PATH="$$bin:$$PATH"; \
	ruff check .; ruff format --check .; PYTHONPATH=. lint-imports --no-cache --no-logo; mypy --python-executable "$$types/python"; \
	mypy actions/setup/environment.py tests/run.py; \
	mypy --python-executable "$$types/python" --python-version 3.11 .github/*.py; \
	actionlint; zizmor --offline --quiet --persona pedantic --strict-collection .github actions; \
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml examples/*.yml; \
	actionlint examples/*.yml; \
	check-jsonschema --builtin-schema vendor.github-actions actions/*/action.yml; \
	check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml; \
	check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml; \
	check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml

.PHONY: fuzz
fuzz: ## Mutate 100,000 bundles and manifests: none accepted, none crashes
	@bin=$(call environment,dev); "$$bin/python" -m tests.fuzz.fuzz_bundles $(ARGS)

.PHONY: fuzz-load
fuzz-load: ## Mutate 10,000 models of each format: no loader crashes, hangs, fills memory or writes
	@for role in pytorch tensorflow; do \
	  bin=$(call environment,$$role); "$$bin/python" -m tests.fuzz.fuzz_loading $(ARGS); \
	done

.PHONY: bench
bench: ## Measure signing and verifying beside the peer and the machine's limits
	@bin=$(call environment,dev); \
	"$$bin/python" bench/speed.py --ours "$(call environment,base)" --peer "$(call environment,peer)" $(ARGS)

.PHONY: bench-elsewhere
bench-elsewhere: ## Measure hashing a model in a bucket on this machine beside the same files here
	@bin=$(call environment,dev); "$$bin/python" bench/elsewhere.py $(ARGS)

.PHONY: bench-fleet
bench-fleet: ## Measure many models, a million files, a service and a cluster (ARGS=; about 10 minutes)
	@bin=$(call environment,dev); "$$bin/python" bench/fleet.py --ours "$(call environment,base)" \
		--peer "$(call environment,peer)" --dask "$$bin" $(ARGS)

.PHONY: bench-copying
bench-copying: ## Measure what a verified copy costs beside hashing alone and writing alone (30 GB of disk)
	@"$(PYTHON)" bench/copying.py --ours "$(call environment,base)" $(ARGS)

.PHONY: bench-accuracy
bench-accuracy: ## Train on real photographs beside the tutorial recipes (DATA_DIR=; about 30 minutes)
	@bin=$(call environment,pytorch); "$$bin/python" bench/accuracy.py --data-dir "$(DATA_DIR)" \
		--pytorch "$$bin" --tensorflow "$(call environment,tensorflow)" $(ARGS)

.PHONY: bench-runs
bench-runs: ## Measure what a run of train.yml (every format) and of sign.yml costs (about 15 minutes)
	@bin=$(call environment,dev); "$$bin/python" bench/runs.py $(ARGS)

# Versions move only here. Nothing in the files names an index: they hold names and digests, for every
# Python that we support. A lock takes the versions of those before it, so that they can be installed
# together (`ROLES` in actions/setup/environment.py). PyTorch's own index has the build for the CPU.
# Dependabot takes its options from the command in a lock's first lines: without them it would lock for
# one Python on one system.
LOCKED = --universal --python-version 3.10 --generate-hashes --no-annotate
COMPILE = "$$bin/uv" --no-config --no-python-downloads pip compile --quiet --upgrade $(LOCKED) \
	--no-emit-index-url --no-emit-find-links
.PHONY: lock
lock: ## Resolve the requirements again and write the hash-locked files
	@bin=$(call environment,bootstrap); cd requirements; \
	compile() { \
		UV_CUSTOM_COMPILE_COMMAND="uv pip compile $(LOCKED) --output-file $$1.txt $$2.in" \
			$(COMPILE) --output-file "$$1.txt" "$$2.in" "$${@:3}"; }; \
	for name in bootstrap base peer kubeflow; do compile $$name $$name; done; \
	compile dev dev --constraint base.txt; \
	for name in test verifier gcp demo lint tensorflow; do compile $$name $$name --constraint dev.txt; done; \
	compile pytorch-cuda pytorch --constraint dev.txt; \
	compile pytorch pytorch --constraint dev.txt --torch-backend cpu

.PHONY: bench-services
bench-services: ## Sign 1,000 models, 20 at a time, on the real services, beside the peer (needs Go)
	@bin=$(call environment,dev); "$$bin/python" bench/services.py \
		--ours "$(call environment,base)" --peer "$(call environment,peer)" $(ARGS)

.PHONY: tables
tables: ## Write the tables of inputs, outputs and permissions into the READMEs
	@bin=$(call environment,dev); "$$bin/python" .github/tables.py

.PHONY: dist
dist: ## Build the wheel and the source archive, twice, and compare them byte for byte
	@bin=$(call environment,bootstrap); rm -rf build dist; \
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	for folder in build/again dist; do "$$bin/python" -m hatchling build -d "$$folder"; done; \
	diff -r build/again dist; sha256sum dist/*

.PHONY: clean
clean: ## Remove outputs and caches of this checkout (environments stay in the cache folder)
	rm -rf out build dist .mypy_cache .ruff_cache .hypothesis .coverage
