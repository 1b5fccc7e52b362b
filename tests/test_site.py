"""The course as web pages, in a browser: every link leads somewhere, every formula is drawn.

The tests build the site, for which they need Sphinx: pip install -e '.[site]'.
"""

import functools
import http.server
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_browser import browser  # noqa: F401

import diffusion_lib

pytestmark = pytest.mark.slow
pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SIZES = {"phone": (390, 844), "laptop": (1280, 800)}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, Path]]:
    """The built site: its address on this machine, and its folder."""
    build = [sys.executable, ROOT / ".github/site/build.py"]
    result = subprocess.run(build, capture_output=True, text=True)
    assert result.returncode == 0 and not result.stderr, result.stderr
    folder = ROOT / "build/site/html"
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()


@pytest.fixture(params=SIZES)
def tab(request, browser):  # noqa: F811
    """A tab of a phone or a laptop; `failed` lists what could not be loaded, or lies elsewhere."""
    width, height = SIZES[request.param]
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.failed = []

    def answered(response) -> None:
        if response.status >= 400:
            tab.failed.append(response.url)

    def asked(route) -> None:
        if "//127.0.0.1:" in route.request.url or route.request.url.startswith("data:"):
            return route.continue_()
        tab.failed.append(route.request.url)
        return route.abort()

    tab.on("response", answered)
    tab.on("pageerror", lambda error: tab.failed.append(str(error)))
    tab.route("**", asked)
    yield tab
    tab.close()


def pages(folder: Path) -> list[str]:
    paths = [path.relative_to(folder) for path in folder.rglob("*.html")]
    return sorted(path.as_posix() for path in paths if path.parts[0] != "_static")


def drawn(tab) -> None:
    """Wait until MathJax has drawn all formulas."""
    tab.wait_for_function(
        "[...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container'))"
    )


def test_pages_fit_their_window_and_show_their_formulas(site, tab):
    address, folder = site
    for page in pages(folder):
        tab.goto(address + page)
        drawn(tab)
        assert tab.locator("mjx-merror").count() == 0, page
        text = tab.evaluate(
            "() => { const body = document.body.cloneNode(true);"
            "body.querySelectorAll('pre, code, mjx-container, script').forEach(e => e.remove());"
            "return body.textContent }"
        )
        if not page.startswith("reference/"):  # which names variables of the shell
            assert "$" not in text and "\\(" not in text, page
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= tab.viewport_size["width"], page
    assert tab.failed == []


def test_every_link_within_the_site_leads_somewhere(site, browser):  # noqa: F811
    address, folder = site
    tab = browser.new_page(java_script_enabled=False)
    anchors, links = {}, []
    for page in pages(folder):
        tab.goto(address + page)
        found = "[...document.querySelectorAll('[id]')].map(e => e.id)"
        anchors[page] = {*tab.evaluate(found), ""}
        links += [(page, to) for to in tab.evaluate("[...document.links].map(a => a.href)")]
    tab.close()
    assert len(links) > 1000
    for page, link in links:
        if link.startswith(address):
            path, _, anchor = urllib.parse.unquote(link.removeprefix(address)).partition("#")
            path = path.partition("?")[0]
            assert (folder / path).exists(), (page, link)
            assert anchor in anchors.get(path or "index.html", {anchor}), (page, link)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_has_its_neighbors_a_button_for_colab_and_folded_answers(site, name):
    text = (site[1] / f"notebooks/{name}.html").read_text()
    number = NOTEBOOKS.index(name)
    for neighbor in NOTEBOOKS[max(0, number - 1) : number] + NOTEBOOKS[number + 1 : number + 2]:
        assert f'href="{neighbor}.html"' in text
    colab = f"/blob/v{diffusion_lib.__version__}/notebooks/{name}.ipynb"
    assert text.count('class="colab"') == 1 and colab in text
    assert '"google.colab" in' not in text and "(A widget:" not in text
    assert "<details open" not in text and "<details><summary>" in text


def test_the_search_finds_a_page(site, tab):
    tab.goto(f"{site[0]}search.html?q=posterior")
    tab.locator("#search-results li a").first.wait_for()
    assert tab.failed == []


def test_the_dark_theme_is_dark(site, browser):  # noqa: F811
    backgrounds = []
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(f"{site[0]}notebooks/{NOTEBOOKS[0]}.html")
        backgrounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.close()
    assert backgrounds[0] == "rgb(255, 255, 255)" and backgrounds[1] != backgrounds[0]
