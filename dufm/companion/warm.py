"""Kernels that begin with their libraries loaded: forks of one process that has imported what every notebook imports.

Importing costs a kernel more than two seconds of processor time, and many notebooks compute for less.  jupyter_client
starts a small process in the kernel's place, which asks the server for a fork and lives as long as it: whichever of the
two ends, the other does.  When the server ends, or the command that started it, every kernel does.

On Linux alone, as the system's own libraries need not survive a fork elsewhere.  As a script this is the server, or the
small process, which imports nothing beyond the standard library.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys

__all__ = ["AVAILABLE", "command", "serving"]

AVAILABLE = sys.platform == "linux"
SOCKET = "kernels.socket"
# Of other people's making only: the source of this package may change while a run is under way.
LOADED = (
    "torch",
    "scipy.optimize",
    "pandas",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "PIL.PngImagePlugin",
    "IPython.core.interactiveshell",
    "ipykernel.kernelapp",
)
_SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h


def command(folder):
    """The command of a kernel spec that starts kernels by the server of this folder."""
    return [sys.executable, "-I", "-S", __file__, "ask", str(folder), "-f", "{connection_file}"]


@contextlib.contextmanager
def serving(folder, environment):
    """Run the server, with these variables, until the block ends; only who may look into ``folder`` can ask it."""
    server = subprocess.Popen(
        [sys.executable, "-P", __file__, "serve", str(folder), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    with server:
        try:
            assert server.stdout is not None
            server.stdout.read(1)  # it listens, or has died: then each kernel loads for itself
            yield
        finally:
            server.kill()


def _serve(folder, parent):
    signal.signal(signal.SIGTERM, _end_all)
    _end_with_the_parent(signal.SIGTERM, int(parent))
    os.chdir(folder)  # the name of a socket is at most 108 bytes long
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen()
    os.write(1, b"\n")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as a kernel has it
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    woken, waking = socket.socketpair()
    for end in (woken, waking):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno())
    poll = select.poll()
    running: dict[int, tuple[socket.socket, int]] = {}  # by number of the connection: it, and its kernel
    for readable in (listener, woken):
        poll.register(readable, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                kernel = os.fork()
                if not kernel:
                    for inherited in (listener, woken, waking, *(other for other, _ in running.values())):
                        inherited.close()
                    _become_kernel(client)
                    return
                running[client.fileno()] = client, kernel
                poll.register(client, select.POLLRDHUP)
            elif number == woken.fileno():
                woken.recv(4096)
            else:  # the process in this kernel's place has ended
                poll.unregister(number)
                os.kill(running[number][1], signal.SIGKILL)
        ended = set(_ended())
        for number in [number for number, (_, kernel) in running.items() if kernel in ended]:
            with contextlib.suppress(KeyError):
                poll.unregister(number)
            running.pop(number)[0].close()


def _ended():
    """The children that have ended since."""
    with contextlib.suppress(ChildProcessError):
        while kernel := os.waitpid(-1, os.WNOHANG)[0]:
            yield kernel


def _end_all(*_):
    from dufm.companion import child

    child.end(os.environ[child.MARK])
    os._exit(1)


def _end_with_the_parent(signal_, parent):
    """Ask the kernel of the system for this signal when ``parent`` ends, which it may have done already."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal_)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_)


def _become_kernel(client):
    """Run a kernel in this fork as if it had been started as ``client`` was: its files, variables and folder."""
    server = os.getppid()
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    _end_with_the_parent(signal.SIGKILL, server)
    os.setsid()  # a kernel ends its process group along with itself
    with client:
        _, given, _, _ = socket.recv_fds(client, 1, 3)
        arguments, variables, folder = json.loads(client.makefile("rb").readline())
    for number, file in enumerate(given):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    importlib.import_module("ipykernel.kernelapp").launch_new_instance()


def _ask(folder, *arguments):
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            os.chdir(folder)
            server.connect(SOCKET)
        except OSError:
            os.chdir(here)
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])
        socket.send_fds(server, [b"\n"], [0, 1, 2])
        server.sendall(json.dumps([arguments, dict(os.environ), here]).encode() + b"\n")
        server.recv(1)  # nothing comes: it is closed when the kernel has ended


if __name__ == "__main__":
    {"serve": _serve, "ask": _ask}[sys.argv[1]](*sys.argv[2:])
