# The targets set up what they need; see scripts/setup. ARGS is passed on: make test ARGS="-k memory".
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-sanitized fuzz test-vm test-vm-quick test-vm-arm64 test-languages services-up services-down native bench check
.PHONY: fmt docs lock clean

# Where this is set every process compiles every module anew, and tests start hundreds of them.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
ARGS :=
# Many tests wait, so there are twice as many workers as processors. Each takes neighbours, which share servers.
WORKERS = -n $(shell expr 2 '*' $$(nproc)) --dist worksteal
# Each path through the launcher and PID 1, and no exact amounts of memory, of which sanitizers take some.
SANITIZED = $(addprefix tests/sandbox/test_,prestart.py files.py interactive.py launchers.py layers.py output.py restored.py \
	survival.py templates.py)
SECONDS := 60

help: ## Show these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

run: ## Run the programs in examples/ in sandboxes and show what came of them
	@scripts/setup run
	@$(BIN)/python scripts/run_examples.py $(ARGS)

test: ## Check and run every test; with ARGS only the tests that they select
	@scripts/setup test
	@$(if $(ARGS),,scripts/check)
	@$(BIN)/pytest $(WORKERS) $(ARGS)

test-fast: ## Run one variant of each test but the slow ones, without type checkers
	@scripts/setup test
	@$(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet
	@$(BIN)/pytest $(WORKERS) --one-variant -m "not slow" $(ARGS)

test-sanitized: ## Run a part of the sandbox tests with a launcher that checks itself
	@scripts/setup test
	@$(BIN)/python -m tests.support.native_harness build/native/firebox-launcher-sanitized
	@FIREBOX_TEST_LAUNCHER=build/native/firebox-launcher-sanitized \
		$(BIN)/pytest $(WORKERS) --one-variant -m "not slow" $(SANITIZED) $(ARGS)

fuzz: ## Fuzz the native code with clang, SECONDS=60 for each fuzzer
	@scripts/setup test
	@$(BIN)/python -m tests.support.fuzzing $(SECONDS) $(ARGS)

test-vm: ## Run the sandbox tests in a virtual machine with cgroup v2, as root and as an ordinary user
	@scripts/setup test
	@scripts/test-vm $(ARGS)

test-vm-quick: ## Run the bounded part of test-vm
	@scripts/setup test
	@scripts/test-vm --quick $(ARGS)

test-vm-arm64: ## The same, with the filter's tests, in an emulated arm64 machine
	@scripts/setup test
	@scripts/test-vm --arm64 --quick $(ARGS)

test-languages: ## Build, install and run every recipe; FIREBOX_LANGUAGES=python,lua limits it
	@scripts/setup test
	@FIREBOX_LANGUAGES=$${FIREBOX_LANGUAGES:-all} $(BIN)/pytest -o faulthandler_timeout=1800 tests/languages $(ARGS)

services-up: ## Start PostgreSQL, Redis and a Docker Engine for yourself: eval "$(make -s services-up)"
	@scripts/setup test
	@$(BIN)/python -m scripts.services up

services-down: ## Stop them; what they keep stays in your cache folder
	@scripts/setup test
	@$(BIN)/python -m scripts.services down

native: ## Compile the native launcher; with ARGS=--strict let warnings be errors
	@scripts/setup run
	@$(BIN)/python scripts/build_native.py $(ARGS)

bench: ## Measure against the bare interpreters and compilers of this machine
	@scripts/setup test
	@$(BIN)/firebox bench $(ARGS)

check: ## Lint, check the format and the types
	@scripts/setup test
	@scripts/check

fmt: ## Format the code and mend what the linter can
	@scripts/setup test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: ## Write the generated pages of docs/ anew
	@scripts/setup test
	@$(BIN)/python -m scripts.write_docs

lock: ## Write the lock files anew, with the newest versions
	@scripts/lock

clean: ## Remove the virtual environment, the native launcher and all caches
	rm -f src/firebox/sandbox/firebox-launcher src/firebox/sandbox/.firebox-launcher.stamp
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
