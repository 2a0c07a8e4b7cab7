# `make lab` to learn, `make test` to check. All is done by workbook.py, which works without make too:
# `python workbook.py lab`. Everything is installed into .venv in this folder.
# Settings:  make lab LAB_ARGS=--no-browser    make test-quick PYTEST_ARGS="-k lora"
#            make real MODEL=smollm2-instruct NOTEBOOKS="05 12"    make course COURSE=course NUMBERS="07 12"
#            make slides SLIDES_ARGS=--pdf    (needs chromium)
#            make lab PYTHON=/path/to/python3.11    (the Python that .venv is made from)

PYTHON ?=
export PYTHON
LAB_ARGS ?=
PYTEST_ARGS ?=
BROWSER_ARGS ?=
MODEL ?= smollm2-instruct
NOTEBOOKS ?=
COURSE ?= course
NUMBERS ?=
COURSE_ARGS ?=
SLIDES_ARGS ?=

# Any Python 3 starts workbook.py, which looks for a suitable one itself. That a name is on the path
# proves nothing: version managers leave stand-ins that only print an error.
workbook = for name in $(PYTHON) python3 python python3.13 python3.12 python3.11; do \
  "$$name" -c "" 2>/dev/null && exec "$$name" workbook.py $(1); \
  done; echo "No Python was found: install Python 3.11 to 3.13, or name it with PYTHON=/path/to/it" >&2; exit 1

.DEFAULT_GOAL := help
.PHONY: help lab reset test test-all test-quick test-notebooks notebooks bench bench-notebooks book slides course models real browser lint clean

help: ; @$(call workbook,--help)
lab: ; @$(call workbook,lab $(LAB_ARGS))
reset: ; @$(call workbook,reset $(NUMBERS))
test: ; @$(call workbook,test $(PYTEST_ARGS))
test-all: ; @$(call workbook,test-all $(PYTEST_ARGS))
test-quick: ; @$(call workbook,test-quick $(PYTEST_ARGS))
test-notebooks: ; @$(call workbook,test-notebooks)
notebooks: ; @$(call workbook,notebooks)
bench: ; @$(call workbook,bench)
bench-notebooks: ; @$(call workbook,bench-notebooks)
book: ; @$(call workbook,book build/book)
slides: ; @$(call workbook,slides build/slides $(SLIDES_ARGS))
course: ; @$(call workbook,course $(COURSE) $(NUMBERS) $(COURSE_ARGS))
models: ; @$(call workbook,models)
real: ; @$(call workbook,real $(MODEL) $(NOTEBOOKS))
browser: ; @$(call workbook,browser $(BROWSER_ARGS))
lint: ; @$(call workbook,lint)
clean: ; @$(call workbook,clean)
