# The targets that people call; what they do stands in tests/ci, tests/lab, tests/demo and tests/bench.
SHELL := /bin/bash
PYTHON ?= python3
# Set up, then run the environment's Python with the collection tree and without a locale's surprises.
RUN = $(PYTHON) -m tests.ci setup && eval "$$($(PYTHON) -m tests.ci.exports)" && exec python
PARTS = lint unit integration sanity docs galaxy matrix

.PHONY: help setup demo test lab lab-stop bench format $(PARTS)
.DEFAULT_GOAL := help

help:
	@echo 'make demo      back up running VMs in the lab and show the result (3 minutes)'
	@echo 'make test      everything that CI runs'
	@echo 'make lab       boot the lab, leave it running, say how to use it; make lab-stop ends it'
	@echo 'make bench     measure packing against its peers'
	@echo 'make format    bring the Python sources into the one style'
	@echo 'make setup     only the environment; the others call it'
	@echo 'parts of test: $(PARTS)'

setup:
	@$(PYTHON) -m tests.ci setup

test:
	@$(PYTHON) -m tests.ci all

$(PARTS):
	@$(PYTHON) -m tests.ci $@

demo:
	@$(RUN) -m tests.demo

lab:
	@$(RUN) -m tests.lab up

lab-stop:
	@$(RUN) -m tests.lab down

format:
	@$(PYTHON) -m tests.ci setup && eval "$$($(PYTHON) -m tests.ci.exports)" && ruff format --no-cache . && ruff check --no-cache --fix .

bench:
	@$(RUN) -m tests.bench
