# Every target sets up .venv by itself when it is missing or pyproject.toml has changed: with uv where
# that is installed, else with venv and pip. CPU=1 takes a PyTorch for the CPU, which is smaller;
# LOCKED=1 takes the versions of constraints.txt, in place of the newest (of PyTorch the newest).
PYTHON ?= python3
UV := $(shell command -v uv)
BIN := .venv/bin
READY := .venv/ready
PYTHONS := >=3.10,<3.14
LOCK := $(if $(LOCKED),--constraint constraints.txt)
OFFER_CPU = [ -n "$(CPU)" ] || [ "$$(uname)" != Linux ] || command -v nvidia-smi >/dev/null || \
    echo "No GPU of NVIDIA is here. With CPU=1 at its end, this command downloads a smaller PyTorch."
LINT = $(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .

.PHONY: help lab test check test-gpu demo notebooks weights address lock site clean

help:
	@echo "make lab        open the course in JupyterLab, in copies that are yours to change (my_pages/)"
	@echo "make test       run every test and every notebook"
	@echo "make check      the linter and the quick tests, in two minutes"
	@echo "make test-gpu   on a machine with a GPU of NVIDIA: the tests that need one, and every page there"
	@echo "make demo       train on bundled portraits for two minutes, and draw new ones"
	@echo "make notebooks  run all pages again from their scripts and store what they show"
	@echo "make weights    train the bundled models again (about an hour and a half)"
	@echo "make address    stamp the repository's address and the version's tag into the pages"
	@echo "make lock       note the versions of all packages in constraints.txt, for LOCKED=1"
	@echo "make site       the course as web pages, in build/site/html"
	@echo "make clean      remove .venv and caches; pictures and models stay"

# In copies of the pages, so that saving one changes nothing that git knows.
lab: $(READY)
	@$(BIN)/python notebooks/build.py copy
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' \
	    > .venv/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) \
	    --LabApp.default_url=/lab/tree/my_pages/00_start_here.ipynb

# Two files at a time, in the order of their names; a page is one file, whose cells share a kernel.
# Each has one thread: with more, they would wait for each other.
test: $(READY)
	$(LINT)
	OMP_NUM_THREADS=1 $(BIN)/pytest --nbval -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(LINT)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests -m "not slow" -n 2 --dist worksteal

# Numbers differ from those of a CPU, so pages are run, with all their checks, and not compared.
test-gpu: $(READY)
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no GPU")'
	$(BIN)/pytest -o addopts=-rs --nbval-lax tests/test_graphs.py notebooks

demo: $(READY)
	$(BIN)/python -m diffusion_lib.train demo faces -i 16 --minutes 2 --folder out/demo --force
	$(BIN)/python -m diffusion_lib.predict out/demo/demo.pth --output out/demo --name demo \
	    --num_images 64 --seed 0 --sampler dpm_solver_sde --only_grid --strip --gif
	@echo "Open out/demo/demo_grid.png, and out/demo/demo.gif, how they emerged from noise."
	@echo "Next: make lab. Or with a folder of your own:"
	@echo "    $(BIN)/simple-diffusion train mine path/to/images --image_size 32 --minutes 9"

notebooks: $(READY)
	$(BIN)/python notebooks/build.py run

weights: $(READY)
	$(BIN)/python data/make_weights.py

address: $(READY)
	$(BIN)/python notebooks/build.py address

# Without PyTorch, its compiler and its CUDA, which differ from one kind of GPU to another.
lock: $(READY)
	$(BIN)/python -m pip list --format freeze --exclude-editable | \
	    grep -viE '^(pip=|torch|triton|nvidia|cuda)' > constraints.txt

site: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[site]'
	$(BIN)/python .github/site/build.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ifdef UV
# uv brings a Python, unless PYTHON names one, and with --seed pip, which %pip in a notebook needs.
$(READY): pyproject.toml
	@$(OFFER_CPU)
	uv venv --quiet --allow-existing --seed .venv \
	    --python '$(if $(filter file,$(origin PYTHON)),$(PYTHONS),$(PYTHON))'
	uv pip install --quiet --python .venv $(if $(CPU),--torch-backend cpu) $(LOCK) --editable '.[dev]'
	@touch $(READY)
else
$(READY): pyproject.toml
	@$(OFFER_CPU)
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	    echo "Python 3.10 or newer with venv is needed: $(PYTHON) is not. Try make PYTHON=python3.12,"; \
	    echo "or on Debian and Ubuntu: sudo apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv
ifdef CPU
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv  # knows where it lies
	$(BIN)/uv pip install --quiet --python .venv --torch-backend cpu torch torchvision
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(LOCK) --editable '.[dev]'
	@touch $(READY)
endif
