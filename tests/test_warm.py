"""Kernels forked from a server that has imported what notebooks import: like others, and none is left behind."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import papermill
import psutil
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient.exceptions import DeadKernelError

from dufm.companion import build, child, warm

pytestmark = [pytest.mark.skipif(not warm.AVAILABLE, reason="forks of a loaded process: Linux alone"), pytest.mark.slow]

# In place of ipykernel, so that a kernel is a few words: it says what it is, and waits.
SAYS = """
import json, os, sys, time
import dufm
about = [os.getcwd(), os.environ.get("COLOUR"), os.environ.get("SERVER"), sys.argv[1:]]
print(json.dumps([os.getpid(), *about, "torch" in sys.modules, "dufm.flow" in sys.modules]), flush=True)
time.sleep(600)
"""
CUSTOM = f"""
import os, sys, types
fake = types.ModuleType("ipykernel.kernelapp")
fake.launch_new_instance = lambda: exec({SAYS!r}, {{}})
sys.modules["ipykernel.kernelapp"] = fake
"""


def watcher_of(parent=None):
    (watcher,) = (process for process in psutil.Process(parent).children() if "serve" in process.cmdline())
    return watcher


def server_of(parent=None):
    """The child of the process that watches over it, where it was forked already."""
    (server,) = watcher_of(parent).children()
    return server


@pytest.fixture
def customised(tmp_path, monkeypatch):
    """Write the ``sitecustomize`` of the server and what it forks."""

    def write(code):
        (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")

    write(CUSTOM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("SERVER", "yes")
    return write


@pytest.fixture
def server(tmp_path, customised):
    """A server of kernels that run ``SAYS``; its process."""
    with warm.serving(tmp_path, f"test {tmp_path}"):
        yield server_of()


@contextlib.contextmanager
def asked(folder, *arguments, cwd=None, **variables):
    """The process in a kernel's place, and the kernel's first line."""
    env = {name: value for name, value in os.environ.items() if name != "SERVER"}
    client = subprocess.Popen(
        [*warm.command(folder)[:-2], *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd or folder,
        env={**env, **variables},
        start_new_session=True,
    )
    with client:
        try:
            yield client, json.loads(client.stdout.readline())
        finally:
            client.kill()


def gone(*pids):
    """Whether these processes have ended within two seconds, zombies included."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not alive:
            return True
        time.sleep(0.02)
    return False


# ---------------------------------------------------------------- like other kernels


def test_a_kernel_is_as_its_client_was_started_with_torch_loaded_and_nothing_of_ours(server, tmp_path):
    folder = tmp_path / "größer"
    folder.mkdir()
    for number in (1, 2):
        given = {"cwd": folder, "COLOUR": "grün\n\udcff"}
        with asked(tmp_path, "-f", f"ports {number}", **given) as (_, (pid, *about)):
            assert about == [str(folder), "grün\n\udcff", None, ["-f", f"ports {number}"], True, False]
            assert psutil.Process(pid).ppid() == server.pid and os.getpgid(pid) == pid != server.pid


def answer(client, code, timeout=30):
    """What a cell says, or the name of its error; one that comes while the kernel drops what an error left waits."""
    said = []
    while True:
        reply = client.execute_interactive(
            code, timeout=timeout, output_hook=lambda message: said.append(message["content"].get("text", ""))
        )
        if reply["content"]["status"] != "aborted":
            return "".join(said).strip() or reply["content"].get("ename")


def test_a_kernel_is_interrupted_leaves_in_order_and_draws_numbers_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "")
    (tmp_path / "besides.py").write_text("print('found')", encoding="utf-8")
    drawn = []
    with warm.serving(tmp_path, f"test {tmp_path}"):
        build.own_kernel(tmp_path, warm.command(tmp_path))
        for number in (1, 2):
            manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
            try:
                assert answer(client, "import os, psutil; print(psutil.Process().parent().cmdline()[2])") == "serve"
                assert answer(client, "import besides") == "found"
                assert answer(client, "import matplotlib; print(matplotlib.get_backend())").endswith("inline")
                wide = "import pandas; print(repr(pandas.DataFrame([range(10**8, 10**8 + 12)])).count(str(10**8)[:4]))"
                assert answer(client, wide) == "12"  # every column, as in a kernel that loads for itself
                drawn.append(answer(client, "import numpy, torch; print(torch.rand(1), numpy.random.rand())"))
                answer(client, f"import atexit, pathlib; atexit.register(pathlib.Path('left {number}').touch)")
                client.execute("import time; print('begun', flush=True); time.sleep(60)")
                while client.get_iopub_msg(timeout=10)["msg_type"] != "stream":
                    pass
                manager.interrupt_kernel()
                assert client.get_shell_msg(timeout=10)["content"]["ename"] == "KeyboardInterrupt"
                assert answer(client, "print('alive')") == "alive"
            finally:
                client.stop_channels()
                manager.shutdown_kernel()
            assert (tmp_path / f"left {number}").exists()
    assert drawn[0] != drawn[1]


def test_a_kernel_whose_port_another_process_took_ends(tmp_path, monkeypatch):
    """It would wait at its end for what has begun, and look alive."""
    monkeypatch.setenv("JUPYTER_PATH", "")
    with warm.serving(tmp_path, f"test {tmp_path}"), socket.create_server(("127.0.0.1", 0)) as taken:
        build.own_kernel(tmp_path, warm.command(tmp_path))
        manager = KernelManager(kernel_name="python3", iopub_port=taken.getsockname()[1], cache_ports=False)
        manager.start_kernel(cwd=str(tmp_path), stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels()
        try:
            with pytest.raises(RuntimeError, match="died before replying"):
                client.wait_for_ready(timeout=30)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("error, runs", [(RuntimeError("Kernel died before replying"), 2), (DeadKernelError(), 1)])
def test_a_notebook_whose_kernel_never_came_is_begun_again(monkeypatch, error, runs):
    begun = []

    def execute(source, **options):
        begun.append(source)
        if len(begun) == 1:
            raise error

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with contextlib.suppress(DeadKernelError):
        child._execute("source", cwd="here")
    assert begun == ["source"] * runs


# ---------------------------------------------------------------- whatever ends


@pytest.mark.parametrize("end", ["client", "kernel", "server", "watcher"])
def test_whichever_ends_no_process_is_left(server, tmp_path, end):
    with asked(tmp_path) as (one, (kernel, *_)), asked(tmp_path) as (other, (its, *_)):
        watcher = server.ppid()
        psutil.Process({"client": one.pid, "kernel": kernel, "server": server.pid, "watcher": watcher}[end]).kill()
        assert gone(kernel) and one.wait(2) in (0, -9)
        if end in ("server", "watcher"):
            assert gone(its, server.pid, watcher) and other.wait(2) == 0
        else:
            assert other.poll() is None and psutil.pid_exists(its)
            with asked(tmp_path) as (third, (again, *_)):
                third.kill()
                assert gone(again)


@pytest.mark.parametrize("seconds", [0, 4], ids=["importing", "waiting"])
def test_the_server_ends_with_the_process_that_started_it_and_ends_what_carries_the_mark(tmp_path, seconds):
    mark = f"test {tmp_path}"
    code = (
        "import sys, time\nfrom dufm.companion import warm\n"
        f"with warm.serving({str(tmp_path)!r}, {mark!r}):\n    print('there', flush=True)\n    time.sleep(600)\n"
    )
    marked = subprocess.Popen(["sleep", "600"], env={**os.environ, "DUFM_RUN": f"{mark} 28_one"})
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent, marked:
        try:
            assert parent.stdout.readline() == "there\n"
            watcher, server = watcher_of(parent.pid), server_of(parent.pid)
            time.sleep(seconds)
            parent.kill()
            assert gone(watcher.pid, server.pid, marked.pid)
        finally:
            parent.kill()
            marked.kill()


def test_what_a_dead_kernel_has_forked_ends_with_the_server(tmp_path, customised):
    forks = "child = os.fork()\nif child:\n    print(json.dumps([os.getpid(), child]), flush=True)"
    customised(CUSTOM.replace(repr(SAYS), repr(SAYS.replace(SAYS.splitlines()[4], forks))))
    with warm.serving(tmp_path, f"test {tmp_path}"), asked(tmp_path) as (_, (kernel, child)):
        psutil.Process(kernel).kill()
        assert gone(kernel) and psutil.pid_exists(child)
    assert gone(child)


# ---------------------------------------------------------------- without a server


def test_a_server_that_cannot_load_something_forks_without_it(tmp_path, customised):
    customised(f"{CUSTOM}\nsys.modules['pandas'] = None\n")
    with warm.serving(tmp_path, f"test {tmp_path}"), asked(tmp_path) as (_, (*_, torch, ours)):
        assert torch and not ours


DIES = """
import gc, os, sys
if "serve" in sys.orig_argv:
    sys.modules["torch"] = sys.modules["scipy"] = None
    gc.freeze = lambda: os._exit(1)
"""
HAS_NO_ROOM = """
import os
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = fork
"""


@pytest.mark.parametrize("custom", [None, "killed", DIES, HAS_NO_ROOM], ids=["none", "killed", "dies", "has no room"])
def test_where_no_server_answers_a_kernel_loads_for_itself(tmp_path, customised, custom):
    """The socket of a server that was killed still stands there."""
    customised(custom if custom and custom != "killed" else "")
    with warm.serving(tmp_path, f"test {tmp_path}") if custom else contextlib.nullcontext():
        if custom == "killed":
            server_of().kill()
        command = [*warm.command(tmp_path)[:-2], "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\d+\.\d+\S*\n", done.stdout) and done.returncode == 0, done.stderr
