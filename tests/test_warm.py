"""Kernels forked from a server that has imported what notebooks import: whatever ends, nothing is left."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

import psutil
import pytest

from dufm.companion import child, warm

pytestmark = [pytest.mark.skipif(not warm.AVAILABLE, reason="forks of a loaded process: Linux alone"), pytest.mark.slow]

# In place of ipykernel, so that a kernel is a few words: it says what it is, and waits.
SAYS = """
import json, os, sys, time
import dufm
about = [os.getcwd(), os.environ.get("COLOUR"), sys.argv[1:], "torch" in sys.modules, "dufm.flow" in sys.modules]
print(json.dumps([os.getpid(), *about]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of kernels that run ``SAYS``; its process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "fake = types.ModuleType('ipykernel.kernelapp')\n"
        f"fake.launch_new_instance = lambda: exec({SAYS!r}, {{}})\n"
        "sys.modules['ipykernel.kernelapp'] = fake\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    with warm.serving(tmp_path, {child.MARK: f"test {tmp_path}", "PYTHONPATH": path}):
        yield next(process for process in psutil.Process().children() if "serve" in process.cmdline())


def asked(folder, *arguments, **variables):
    """The process in a kernel's place, and the kernel's first line."""
    command = [*warm.command(folder)[:-2], *arguments]
    client = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, **variables}, start_new_session=True
    )
    return client, json.loads(client.stdout.readline())


def gone(*pids):
    """Whether these processes have ended within two seconds, zombies included."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not alive:
            return True
        time.sleep(0.02)
    return False


def test_a_kernel_is_as_its_client_was_started_with_torch_loaded_and_nothing_of_ours(server, tmp_path):
    folder = tmp_path / "größer"
    folder.mkdir()
    for number in (1, 2):
        client, (pid, *about) = asked(tmp_path, "-f", f"ports {number}", COLOUR="grün\n\udcff")
        with client:
            assert about == [str(tmp_path), "grün\n\udcff", ["-f", f"ports {number}"], True, False]
            assert psutil.Process(pid).ppid() == server.pid and os.getpgid(pid) == pid != server.pid
            client.kill()


@pytest.mark.parametrize("end", ["client", "kernel", "server"])
def test_whichever_ends_no_process_is_left(server, tmp_path, end):
    with contextlib.ExitStack() as clients:
        (one, (kernel, *_)), (other, (its, *_)) = asked(tmp_path), asked(tmp_path)
        for client in (one, other):
            clients.enter_context(client)
            clients.callback(client.kill)
        psutil.Process({"client": one.pid, "kernel": kernel, "server": server.pid}[end]).kill()
        assert gone(kernel) and one.wait(2) in (0, -9)
        if end == "server":
            assert gone(its) and other.wait(2) == 0
        else:
            assert other.poll() is None and psutil.pid_exists(its)
            third, (again, *_) = asked(tmp_path)
            with third:
                third.kill()
                assert gone(again)


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    """Even while it is still importing."""
    code = (
        "import sys, time\nfrom dufm.companion import warm\n"
        f"with warm.serving({str(tmp_path)!r}, {{'DUFM_RUN': 'test {tmp_path}'}}):\n"
        "    print('there', flush=True)\n    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout.readline() == "there\n"
        (server,) = psutil.Process(parent.pid).children()
        parent.kill()
    assert gone(server.pid)


def test_without_a_server_a_kernel_loads_for_itself(tmp_path):
    """The socket of a server that was killed still stands there."""
    with warm.serving(tmp_path, {child.MARK: f"test {tmp_path}"}):
        pass
    assert (tmp_path / warm.SOCKET).exists()
    client = subprocess.Popen(
        [*warm.command(tmp_path)[:-2], "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert re.fullmatch(r"\d+\.\d+\S*\n", client.communicate(timeout=60)[0]) and client.returncode == 0
