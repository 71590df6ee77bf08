# make run: the whole stack on this machine. make test: everything that CI checks. PYTHON=… chooses the Python.
# make backup TO=FOLDER: database, files and their hashes, while everything runs.
.POSIX:
.PHONY: run install test lint rules bench chaos lock messages chromium backup
PY = .venv/bin/python

run: install
	@exec $(PY) -m webapp.stack

install:
	@sh requirements/install.sh run

# Types are checked beside the tests, on what the tests leave of the processors while they wait.
test: chromium rules
	$(PY) -m mypy & types=$$!; PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 3 --dist worksteal; tests=$$?; wait $$types && exit $$tests

lint: rules
	$(PY) -m mypy

rules:
	@sh requirements/install.sh test lint
	$(PY) -m ruff check .
	.venv/bin/lint-imports

chromium:
	@sh requirements/install.sh test
	@sh tests/browser/install_chromium.sh

bench:
	@sh requirements/install.sh test
	$(PY) -m benchmarks

chaos:
	@sh requirements/install.sh test
	$(PY) -m pytest -n 0 -m chaos
	$(PY) -m tests.chaos

messages:
	@sh requirements/install.sh run
	$(PY) -m tools.messages

lock:
	@sh requirements/install.sh lint
	$(PY) requirements/lock.py --upgrade

backup:
	@exec $(PY) manage.py backup "$(TO)"
