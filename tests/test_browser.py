"""What a reader sees: notebooks run in JupyterLab, and the site's pages, both in a real Chromium without a network."""

import contextlib
import functools
import http.server
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from playwright.sync_api import expect, sync_playwright

from dufm.companion import files

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: install your distribution's chromium", allow_module_level=True)

pytestmark = pytest.mark.slow
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECOND = 1000


@pytest.fixture(scope="module")
def chromium():
    with (
        sync_playwright() as play,
        contextlib.closing(play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)) as it,
    ):
        yield it


def checkout_in(folder):
    """A copy of what a reader opens, and the environment of a server beside it, with no settings of the user's."""
    from ipykernel.kernelspec import write_kernel_spec

    checkout = folder / "a checkout"
    for name in ("notebooks", "figures"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    write_kernel_spec(str(folder / "kernel" / "kernels" / "python3"))
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env = {**os.environ, **{name: str(folder / name.lower()) for name in places}}
    env |= {"JUPYTER_PATH": os.pathsep.join(filter(None, [str(folder / "kernel"), env.get("JUPYTER_PATH")]))}
    env |= {"DUFM_ROOT": str(checkout), "PYTHONPATH": os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])}
    return checkout, env | {"DUFM_JOBS": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def started(log, checkout, env, *command):
    """``python -m`` of a command in the checkout, what it says in the file ``log``."""
    with log.open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=checkout, env=env, stdout=said, stderr=subprocess.STDOUT
        )


def left_after(process, stop):
    """What should not be once a server was told to ``stop``: processes of it, or an exit code."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    stop()
    _, left = psutil.wait_procs(family, timeout=30)
    for one in left:
        one.kill()
    code = process.wait()
    return [*map(str, left), *([f"exit code {code}"] if code else [])]


class Lab:
    """JupyterLab on a copy of the notebooks, started as README says."""

    def __init__(self, folder):
        self.checkout, env = checkout_in(folder)
        port = free_port()
        self.address, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
        self.log = folder / "lab.log"
        options = [f"--port={port}", f"--IdentityProvider.token={self.token}", "--no-browser", "--allow-root"]
        options += ["--ServerApp.port_retries=0", "--LabApp.news_url=None"]
        options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self.process = started(self.log, self.checkout, env, "jupyterlab", "notebooks", *options)
        self.wait_until_up()

    def wait_until_up(self):
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                self.ask("GET", "api/status")
                return
            time.sleep(0.2)
        raise AssertionError(f"JupyterLab is not up after two minutes: {self.log.read_text()}")

    def ask(self, method, what):
        head = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/{what}", method=method, headers=head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self):
        """Shut down as the browser's menu does; returns what should not be."""
        return left_after(self.process, lambda: self.ask("POST", "api/shutdown"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    assert server.stop() == []


def test_lab_stops_and_leaves_no_process(tmp_path):
    server = Lab(tmp_path)
    server.ask("POST", "api/kernels")
    kernels = psutil.Process(server.process.pid).children(recursive=True)
    assert any("ipykernel" in " ".join(process.cmdline()) for process in kernels)
    assert server.stop() == []
    assert not any(process.is_running() for process in kernels)


def watched(browser, address, width=1280):
    """A page, and what it should not have: requests elsewhere, failures and errors."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    bad = []
    page.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or bad.append(request.url))
    page.on("pageerror", lambda error: bad.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and bad.append(f"{answer.status} {answer.url}"))
    return page, bad


CELL, OUTPUT = ".jp-Notebook .jp-CodeCell", ".jp-CodeCell .jp-OutputArea-output"
PICTURE = f"{OUTPUT} img"
TROUBLE = f"{OUTPUT}[data-mime-type='application/vnd.jupyter.error'], {OUTPUT}[data-mime-type$='stderr']"


VALUE = re.compile(r'^("\w+"|\d+)$')  # a text or a number, coloured by the editor


def opened(lab, browser, path):
    """The notebook in a workspace of its own, with the committed outputs, all cells there."""
    page, bad = watched(browser, lab.address)
    page.goto(f"{lab.address}/lab/workspaces/{path.stem[:2]}/tree/{path.as_posix()}?reset&token={lab.token}")
    expect(page.locator(CELL)).to_have_count(len(code_cells(lab, path)), timeout=60 * SECOND)
    return page, bad


def code_cells(lab, path):
    cells = json.loads((lab.checkout / "notebooks" / path).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def menu(page, name, entry):
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$")).click()


def run_all(page, cells, parameters):
    """Type parameters, clear the outputs, run all cells, wait until each has its number or one has failed.

    What is run before the kernel is there is dropped by Lab without a word.
    """
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_attached(timeout=60 * SECOND)
    for name, value in parameters.items():
        page.locator(".cm-line", has_text=re.compile(rf"^{name}: ")).get_by_text(VALUE).dblclick()
        page.keyboard.type(value)
    menu(page, "Edit", "Clear Outputs of All Cells")
    expect(page.locator(OUTPUT)).to_have_count(0)
    menu(page, "Run", "Run All Cells")
    done = page.locator(CELL).filter(has=page.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")))
    expect(done.nth(cells - 1).or_(page.locator(TROUBLE).first)).to_be_attached(timeout=150 * SECOND)
    assert page.locator(TROUBLE).all_inner_texts() == []
    expect(done).to_have_count(cells)


def pictures(page):
    """Width, alt text and address of each picture in the outputs, loaded."""
    page.wait_for_function(f"[...document.querySelectorAll({PICTURE!r})].every(img => img.complete)")
    return page.locator(PICTURE).evaluate_all("all => all.map(img => [img.naturalWidth, img.alt, img.src])")


@pytest.mark.parametrize("name", ["00_overview", "31_portraits", "57_critical_deviation"])
def test_a_notebook_runs_in_lab(lab, chromium, tmp_path, name):
    path = files.source_path(name).relative_to(ROOT / "notebooks").with_suffix(".ipynb")
    page, bad = opened(lab, chromium, path)
    with contextlib.closing(page):
        committed = pictures(page)
        assert committed and all(width > 300 and alt for width, alt, _ in committed)
        assert page.locator(".jp-Dialog").count() == 0
        if name != "00_overview":
            expect(page.locator(".jp-MarkdownOutput mjx-container").nth(10)).to_be_attached()
        run_all(page, len(code_cells(lab, path)), {} if name == "00_overview" else {"budget": "smoke"})
        page.screenshot(path=tmp_path / "after.png")
        drawn = pictures(page)
        assert [alt for _, alt, _ in drawn] == [alt for _, alt, _ in committed]
        assert all(width > 300 for width, _, _ in drawn)
        if name != "00_overview":
            assert "budget='smoke'" in page.locator(OUTPUT).last.inner_text()
        assert not bad


def move_a_slider(page):
    """One step of the depth by the keyboard; both pictures change, and the labels say more than a letter."""
    shown = page.locator(".widget-html img")
    expect(shown).to_have_count(2, timeout=150 * SECOND)
    before = shown.evaluate_all("all => all.map(img => img.src)")
    page.get_by_role("slider").nth(1).focus()
    page.keyboard.press("ArrowRight")
    for picture, old in zip(shown.all(), before, strict=True):
        expect(picture).not_to_have_attribute("src", old, timeout=60 * SECOND)
    labels = page.locator(".widget-slider .widget-label").evaluate_all("all => all.map(label => label.title)")
    assert len(labels) == 7 and all(len(label) > 10 for label in labels)


def test_a_slider_of_the_explorer_takes_the_keyboard_and_changes_the_picture(lab, chromium, tmp_path):
    path = Path("9_tools/92_explorer.ipynb")
    page, bad = opened(lab, chromium, path)
    with contextlib.closing(page):
        run_all(page, len(code_cells(lab, path)), {"draws": "2"})
        move_a_slider(page)
        page.screenshot(path=tmp_path / "moved.png")
        assert all(width > 300 and alt for width, alt, _ in pictures(page)) and not bad


@pytest.fixture
def voila(tmp_path):
    """The explorer served as INSTALL says; one setting is computed, since all cells run before one is shown."""
    checkout, env = checkout_in(tmp_path)
    path, port, log = checkout / "notebooks" / "9_tools" / "92_explorer.ipynb", free_port(), tmp_path / "voila.log"
    text = path.read_text(encoding="utf-8")
    assert text.count("every: int = 25 ") == 1
    path.write_text(text.replace("every: int = 25 ", "every: int = 200 "), encoding="utf-8")
    process = started(log, checkout, env, "voila", "--no-browser", f"--port={port}", str(path))
    while not log.read_text().count("is running at:"):
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    assert left_after(process, process.terminate) == []


def test_voila_serves_the_explorer(voila, chromium, tmp_path):
    """Its page asks elsewhere for icons, so that what :func:`watched` refuses is not asked of it."""
    with contextlib.closing(chromium.new_page()) as page:
        page.goto(f"{voila}/", wait_until="commit", timeout=150 * SECOND)
        move_a_slider(page)
        expect(page.get_by_role("slider")).to_have_count(7)
        page.screenshot(path=tmp_path / "moved.png")
        assert "No reader here" not in page.inner_text("body")


class Served(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(site):
    """Address of the site, served from this process."""
    handler = functools.partial(Served, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


PAGES = ("index", "notebooks/5_dynamics/57_critical_deviation", "gallery", "api/dufm.ends")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_site_fits_and_is_whole(served, chromium, tmp_path, name, width):
    page, bad = watched(chromium, served, width)
    page.on("console", lambda message: message.type in ("error", "warning") and bad.append(message.text))
    with contextlib.closing(page):
        page.goto(f"{served}/{name}.html")
        page.evaluate("document.querySelectorAll('img').forEach(img => { img.loading = 'eager' })")
        page.wait_for_function("[...document.images].every(img => img.complete)")
        empty = "[...document.images].filter(img => !img.naturalWidth || !img.alt).map(img => img.outerHTML)"
        assert page.evaluate(empty) == []
        if name in PAGES[:3]:
            assert page.evaluate("document.images.length") > 0
        if name in PAGES[1::2]:
            expect(page.locator("mjx-container").first).to_be_attached()
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not re.search(r"\$\$|\\\(|\\begin\{|\$\\", page.locator("main").inner_text())
        assert not bad
