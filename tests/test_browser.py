"""The course in a real JupyterLab, in a real browser: widgets that move, a run that is stopped.

Without playwright or a Chromium these tests are SKIPPED, and pytest says so. Where they have to
run, BROWSER_TESTS=required turns that into a failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TOKEN = "course"


def skip_or_fail(reason: str) -> None:
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = [path for path in map(shutil.which, names) if path]
    with sync_playwright() as playwright:
        installed = Path(playwright.chromium.executable_path)
        if not found and not installed.exists():
            skip_or_fail("no Chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(
            executable_path=found[0] if found else installed,
            args=["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


def page_copy(name: str, target: Path, change: Callable[[str], str] = str, upto: str = "") -> None:
    """A page on its own, without its script, with other inputs, and cut off after a cell."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.metadata.pop("jupytext")
    if upto:
        (last,) = (i for i, cell in enumerate(notebook.cells) if upto in cell.source)
        notebook.cells = notebook.cells[: last + 1]
    for cell in notebook.cells:
        cell.source = change(cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, target / f"{name}.ipynb")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, private_cache) -> Iterator[tuple[str, Path]]:
    """A JupyterLab on a free port of this machine: its address, and the folder that it shows."""
    home, shown = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("lab")
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # Every cell is in the page, also those that are not in sight.
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    environment = os.environ | {
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={shown}"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield wait_for(lambda: started(home / "runtime"), 60, "JupyterLab to start"), shown
    finally:
        server.terminate()
        server.wait(30)


def started(runtime: Path) -> str | None:
    for file in runtime.glob("jpserver-*.json"):
        address = json.loads(file.read_text())["url"]
        try:
            urllib.request.urlopen(f"{address}api?token={TOKEN}", timeout=5)
        except OSError:
            continue
        return address
    return None


def wait_for(ask: Callable[[], object], seconds: float, what: str):
    """The first answer that is true, or a failure after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.2)
    pytest.fail(f"waited {seconds} s for {what}")


@pytest.fixture
def open_page(lab, browser):
    """open_page(name) shows a notebook in JupyterLab and runs all of its cells."""
    address, _ = lab
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})

    def kernel_is_ready(name: str) -> bool:
        with urllib.request.urlopen(f"{address}api/sessions?token={TOKEN}") as answer:
            sessions = json.load(answer)
        states = [s["kernel"]["execution_state"] for s in sessions if s["name"] == f"{name}.ipynb"]
        return states == ["idle"]

    def call(name: str):
        # In a workspace of its own: nothing that another test had open comes back.
        tab.goto(f"{address}lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}")
        idle = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
        tab.locator(idle).first.wait_for(state="attached", timeout=60_000)
        wait_for(lambda: kernel_is_ready(name), 60, "the kernel")
        tab.locator(".lm-MenuBar-itemLabel:text-is('Run')").click()
        tab.locator(".lm-Menu-itemLabel:text-is('Run All Cells')").click()
        return tab

    yield call
    tab.close()


def content(picture) -> str:
    """The bytes that an <img> shows."""
    return picture.evaluate(
        "async img => new Uint8Array(await (await fetch(img.src)).arrayBuffer()).toString()"
    )


def problems_in(tab) -> list[str]:
    """What went wrong in the cells, as the page shows it."""
    kinds = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
    found = [tab.locator(f".jp-OutputArea-output[data-mime-type='{kind}']") for kind in kinds]
    return [text for locator in found for text in locator.all_inner_texts()]


def test_the_explorer_of_page_02_follows_its_sliders(lab, open_page):
    page_copy("02_schedules", lab[1], upto="widgets.schedule_explorer(")
    tab = open_page("02_schedules")
    picture = tab.locator(".jp-OutputArea .widget-image").last
    picture.wait_for(timeout=180_000)
    slider = tab.locator(".widget-slider:has(label:text('cursor'))")
    slider.scroll_into_view_if_needed()
    before, element = content(picture), picture.element_handle()
    handle = slider.locator(".noUi-handle").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y, steps=10)
    tab.mouse.up()
    wait_for(lambda: content(picture) != before, 20, "the picture to follow the slider")
    assert float(slider.locator(".widget-readout").inner_text()) > 0.4
    # The same <img> all the time: nothing was cleared and built again, so nothing flickered.
    assert element.evaluate("img => img.isConnected")
    code = tab.locator(".widget-html-content pre").last
    assert "NoiseSchedule(" in code.inner_text()
    tab.locator("button.widget-toggle-button:text-is('sigmoid')").click()
    wait_for(lambda: "sigmoid" in code.inner_text(), 20, "the line of code to follow the button")
    tab.locator("button:has-text('reset')").click()
    wait_for(lambda: "sigmoid" not in code.inner_text(), 20, "the reset")
    assert slider.locator(".widget-readout").inner_text() == "0.30"
    assert problems_in(tab) == []


CLIPPED = """() => [...document.querySelectorAll(
    '.jp-OutputArea .widget-toggle-button, .jp-OutputArea .widget-readout, '
    + '.jp-OutputArea .widget-button, .jp-OutputArea select, .jp-OutputArea .widget-image')]
    .filter(e => {
        const [own, area] = [e, e.closest('.jp-OutputArea')].map(x => x.getBoundingClientRect());
        return e.scrollWidth > e.clientWidth + 1 || own.right > area.right + 1;
    }).map(e => e.innerText || e.className)"""


def test_nothing_of_the_explorer_is_cut_off_in_a_small_window(lab, open_page):
    page_copy("02_schedules", lab[1], upto="widgets.schedule_explorer(")
    tab = open_page("02_schedules")
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.locator(".jp-OutputArea .widget-toggle-button").first.wait_for(timeout=180_000)
    wait_for(lambda: tab.locator(".jp-OutputArea .widget-image").count(), 20, "the picture")
    assert tab.evaluate(CLIPPED) == []


def test_training_on_page_04_is_stopped_by_the_button_and_goes_on(lab, open_page):
    def shorter(source: str) -> str:
        return re.sub(r"^    epochs=8,", "    epochs=2,", source, flags=re.MULTILINE)

    page_copy("04_training", lab[1], shorter, upto='"Training on portraits")')
    tab = open_page("04_training")
    status = tab.locator(".widget-html-content:has-text('step')").last
    status.wait_for(timeout=240_000)
    wait_for(lambda: "loss" in status.inner_text(), 60, "the first report")
    tab.locator("[data-command='notebook:interrupt-kernel']").first.click()
    wait_for(lambda: "stopped after" in status.inner_text(), 30, "the run to stop")
    step, steps = map(int, re.findall(r"\d+", status.inner_text())[:2])
    assert 0 < step < steps
    # The cell below was waiting: it takes the run up again, to its end, and draws the loss.
    figures = tab.locator(".jp-OutputArea-output img")
    before = figures.count()
    wait_for(lambda: figures.count() > before, 240, "the loss curve of the whole run")
    assert problems_in(tab) == []
