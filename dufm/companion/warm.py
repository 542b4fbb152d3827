"""Kernels that begin with their libraries loaded: forks of one process that has imported what every notebook imports.

Importing costs a kernel more than two seconds of processor time, and many notebooks compute for less.  jupyter_client
starts a small process in the kernel's place, which asks the server for a fork and lives as long as it: whichever of the
two ends, the other does.  When the server ends, or the command that started it, every kernel does.  Where no server
answers, the small process becomes a kernel like any other.

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
import traceback

__all__ = ["AVAILABLE", "command", "serving"]

#: Whether kernels are forked here.
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
    return [sys.executable, "-P", "-S", __file__, "ask", str(folder), "-f", "{connection_file}"]


@contextlib.contextmanager
def serving(folder, mark):
    """Run the server until the block ends, and end all that carries ``mark`` then; the block gets :func:`command`.

    Only who may look into ``folder`` can ask the server.  Where kernels are not forked there is no server, and None.
    """
    from dufm.companion import child

    if not AVAILABLE:
        yield None
        return
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(folder), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # each kernel has its own
        env={**os.environ, child.MARK: mark},
        start_new_session=True,
    )
    with server:
        try:
            assert server.stdout is not None
            server.stdout.read(1)  # it listens, or has died
            yield command(folder)
        finally:
            child.end(mark)


def _watch(folder, parent):
    """Fork the server, and end all with the parent: here, where no long import keeps the news waiting."""
    signal.signal(signal.SIGTERM, _end_all)
    _end_with_the_parent(signal.SIGTERM, int(parent))
    watcher = os.getpid()
    if server := os.fork():
        os.close(1)
        os.waitpid(server, 0)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with_the_parent(signal.SIGKILL, watcher)
        _serve(folder)


def _serve(folder):
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(__file__)]  # no kernel has it
    os.chdir(folder)  # the name of a socket is at most 108 bytes long
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen()
    os.write(1, b"\n")
    if not os.environ.get("MPLBACKEND"):  # matplotlib reads it when it is loaded, ipykernel sets it later
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    woken, waking = socket.socketpair()
    for end in (woken, waking):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno())
    poll, server = select.poll(), os.getpid()
    running: dict[int, tuple[socket.socket, int]] = {}  # by number of the connection: it, and its kernel
    for readable in (listener, woken):
        poll.register(readable, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                try:
                    kernel = os.fork()
                except OSError:  # no room for another process: the client becomes a kernel itself
                    client.close()
                    continue
                if not kernel:
                    for inherited in (listener, woken, waking, *(other for other, _ in running.values())):
                        inherited.close()
                    _become_kernel(client, server)
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


def _become_kernel(client, server):
    """Run a kernel in this fork as if it had been started as ``client`` was: its files, variables and folder."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _end_with_the_parent(signal.SIGKILL, server)
    os.setsid()  # a kernel ends its process group along with itself
    with client:
        _, given, _, _ = socket.recv_fds(client, 1, 3)
        arguments, variables, folder = json.loads(client.makefile("rb").readline())
        client.send(b"\n")
    for number, file in enumerate(given):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for name in {"torch", "numpy.random"} & sys.modules.keys():  # all forks would draw the same numbers
        sys.modules[name].seed()
    if pandas := sys.modules.get("pandas"):  # a process without a kernel is a terminal to it, and tables are cut to fit
        pandas.set_option("display.max_columns", 20)
    sys.argv = ["ipykernel_launcher", *arguments]
    try:
        importlib.import_module("ipykernel.kernelapp").launch_new_instance()
    except Exception:  # such as a port that another process took; what has begun by then would keep it from ending
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _ask(folder, *arguments):
    here = os.getcwd()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder)
        server.connect(SOCKET)
        socket.send_fds(server, [b"\n"], [0, 1, 2])
        server.sendall(json.dumps([arguments, dict(os.environ), here]).encode() + b"\n")
        if server.recv(1):
            with contextlib.suppress(ConnectionError):
                server.recv(1)  # nothing comes: it is closed when the kernel has ended
            return
    os.chdir(here)
    os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])


if __name__ == "__main__":
    {"serve": _watch, "ask": _ask}[sys.argv[1]](*sys.argv[2:])
