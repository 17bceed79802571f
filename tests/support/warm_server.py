"""Fork server of the tests: Python programs that start with MLflow, scikit-learn and pandas already imported.

A cold ``python -m airflow_mcp.work`` spends three seconds of CPU on imports. This server imports once, starts nothing,
and forks a child for every request. To the caller, and to anybody who looks into ``/proc``, the child is the program
that was asked for: its arguments, environment, working folder, file descriptors and session are those of the request.

Run as ``python -P warm_server.py SOCKET PADDING``; it ends when its standard input does. The other end of the socket
is :mod:`tests.support.warm`. Standard library only, beside what :data:`PRELOADED` names.

Two programs start something themselves, and what they start is forked as well, as a real child of theirs: the
supervisor of a local workload (``guard.py``) and the step ``train``, whose script gets a process that was forked
before the step did anything.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, NoReturn

PRELOADED = (
    *("mlflow", "mlflow.sklearn", "mlflow.pyfunc", "mlflow.models", "pandas", "pyarrow.parquet", "pyarrow.csv"),
    *("scipy.stats", "sklearn.dummy", "sklearn.ensemble", "sklearn.inspection", "sklearn.linear_model"),
    *("sklearn.model_selection", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.tree"),
    # What MLflow imports at the first request, for an artifact, and for a model of scikit-learn.
    *("mlflow.tracking.request_header.registry", "fsspec", "skops.io"),
)
HEADER_BYTES = 8
GUARD = "guard.py"
_OPTIONS_WITH_PROGRAM = {"-m": "module", "-c": "code"}
_OWN_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Program:
    """What a command line of Python asks for.

    :param kind: ``module``, ``code`` or ``script``.
    :param name: module, source or path.
    :param arguments: what follows it.
    :param is_safe_path: whether no folder of the caller comes first in ``sys.path`` (option ``-P``).
    """

    kind: str
    name: str
    arguments: tuple[str, ...]
    is_safe_path: bool


def program_of(command: Sequence[str], path: str | None) -> Program | None:
    """Return what a command line asks this interpreter for; None when only a real start will do.

    :param command: program and arguments.
    :param path: PATH in which the program is looked up.
    """
    if not command or not _is_this_python(command[0], path):
        return None
    rest, is_safe_path = list(command[1:]), False
    while rest and rest[0] in {"-P", "-u"}:
        is_safe_path = is_safe_path or rest[0] == "-P"
        del rest[0]
    if rest[:2] == ["-I", "-S"] and len(rest) > 2 and Path(rest[2]).name == GUARD:
        return Program("script", rest[2], tuple(rest[3:]), True)
    if len(rest) > 1 and rest[0] in _OPTIONS_WITH_PROGRAM:
        return Program(_OPTIONS_WITH_PROGRAM[rest[0]], rest[1], tuple(rest[2:]), is_safe_path)
    if rest and not rest[0].startswith("-") and Path(rest[0]).suffix == ".py":
        return Program("script", rest[0], tuple(rest[1:]), is_safe_path)
    return None


def _is_this_python(name: str, path: str | None) -> bool:
    if name == sys.executable:
        return True
    found = None if os.sep in name else shutil.which(name, path=path)
    return found is not None and Path(found).parent == Path(sys.executable).parent and name.startswith("python")


class Server:
    """Forks a child for each request and sends back its process id, then the status it ended with.

    :param path: path of the socket.
    :param start: called in a child with command, environment and working folder; by default it runs the program.
    """

    def __init__(self, path: str, start: Callable[[Sequence[str], Mapping[str, str], str], None] | None = None) -> None:
        self._start = start or start_program
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._callers: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Answer requests until standard input ends."""
        wake_up, wake_up_write = os.pipe()
        for descriptor in (wake_up, wake_up_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_up_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._listener.listen(64)
        with selectors.DefaultSelector() as selector:
            for source in (0, wake_up, self._listener.fileno()):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if 0 in ready:
                    return
                if wake_up in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_up, 4096)
                    self._report_ended()
                if self._listener.fileno() in ready:
                    self._answer()

    def _report_ended(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                caller = self._callers.pop(pid)
                with contextlib.suppress(OSError):  # the caller was killed
                    caller.sendall(f"{status}\n".encode())
                caller.close()

    def _answer(self) -> None:
        caller, _ = self._listener.accept()
        try:
            request, descriptors = receive(caller)
        except (OSError, ValueError):  # the caller was killed while it asked
            caller.close()
            return
        pid = os.fork()
        if pid == 0:
            become(request, descriptors, self._start)
        for descriptor in descriptors:
            os.close(descriptor)
        self._callers[pid] = caller
        with contextlib.suppress(OSError):
            caller.sendall(f"{pid}\n".encode())


def receive(caller: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read one request: its JSON and its file descriptors.

    :raises ValueError: when the caller closes the connection before the end.
    """
    room = array.array("i")
    first, ancillary, _, _ = caller.recvmsg(HEADER_BYTES, socket.CMSG_SPACE(64 * room.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            room.frombytes(data[: len(data) - len(data) % room.itemsize])
    size, text = int.from_bytes(first), b""
    while len(text) < size:
        part = caller.recv(size - len(text))
        if not part:
            raise ValueError("the request has no end")
        text += part
    if not size:
        raise ValueError("the request is empty")
    return json.loads(text), list(room)


def become(
    request: Mapping[str, Any],
    descriptors: Sequence[int],
    start: Callable[[Sequence[str], Mapping[str, str], str], None],
) -> NoReturn:
    """Turn this forked process into the program of a request."""
    if request["new_session"]:
        os.setsid()
    signal.set_wakeup_fd(-1)
    _restore_signals(_OWN_SIGNALS)
    _place(dict(zip(request["targets"], descriptors, strict=True)))
    _exit_with(lambda: start(request["command"], request["env"], request["cwd"]))


def start_program(command: Sequence[str], env: Mapping[str, str], cwd: str | None = None) -> None:
    """Run the Python program of a command line in this process.

    :raises ValueError: when the command is not a program of this interpreter.
    """
    program = program_of(command, env.get("PATH"))
    if program is None:
        raise ValueError(f"not a program of this interpreter: {command}")
    if cwd is not None:
        os.chdir(cwd)
    wear(command, env)
    measure_coverage(env)
    if Path(program.name).name == GUARD:
        vars(os)["posix_spawnp"] = _spawn
    elif program.kind != "script" and "airflow_mcp.work" in program.name and program.arguments[:1] == ("train",):
        from airflow_mcp.work.steps import train

        spare = SpareProcess()
        vars(train)["subprocess"] = SimpleNamespace(Popen=spare)
    run_program(program)


def measure_coverage(env: Mapping[str, str]) -> None:
    """Begin to measure this process where its environment asks for it."""
    if env.get("COVERAGE_PROCESS_CONFIG"):
        import coverage

        coverage.process_startup(force=True)


def run_program(program: Program) -> None:
    """Run a program as ``__main__``."""
    if program.kind == "module":
        sys.argv = [program.name, *program.arguments]
        if not program.is_safe_path:
            sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(program.name, run_name="__main__", alter_sys=True)
    elif program.kind == "script":
        sys.argv = [program.name, *program.arguments]
        if not program.is_safe_path:
            sys.path.insert(0, str(Path(program.name).parent.resolve()))
        runpy.run_path(program.name, run_name="__main__")
    else:
        sys.argv = ["-c", *program.arguments]
        if not program.is_safe_path:
            sys.path.insert(0, "")
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(program.name, "<string>", "exec"), vars(main))  # `python -c` does nothing else


def _exit_with(call: Callable[[], None]) -> NoReturn:
    """Call, then end this process as the interpreter ends one: exit code, traceback, exit handlers, signal."""
    code, is_interrupted = 0, False
    try:
        call()
    except SystemExit as error:
        code = _code_of(error)
    except BaseException as error:
        traceback.print_exception(error.with_traceback(_own(error.__traceback__)))
        code, is_interrupted = 1, isinstance(error, KeyboardInterrupt)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        if is_interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames that lead to the program."""
    while trace is not None and trace.tb_frame.f_code.co_filename in {__file__, runpy.__file__, "<frozen runpy>"}:
        trace = trace.tb_next
    return trace


def _code_of(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)  # as the interpreter does
    return 1


def _spawn(
    file: str,
    command: list[str],
    env: Mapping[str, str],
    *,
    setpgroup: int,
    setsigdef: Sequence[int],
    setsigmask: Sequence[int],
) -> int:
    """Stand in for ``os.posix_spawnp`` as the guard calls it: fork where this interpreter is meant."""
    given = dict(env)
    if program_of(command, given.get("PATH")) is None:
        return _real_spawn(file, command, env, setpgroup=setpgroup, setsigdef=setsigdef, setsigmask=setsigmask)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, setpgroup)
        signal.set_wakeup_fd(-1)
        _restore_signals(setsigdef)
        signal.pthread_sigmask(signal.SIG_SETMASK, setsigmask)
        _close_from(3)
        vars(os)["posix_spawnp"] = _real_spawn
        _exit_with(lambda: start_program(command, given))
    with contextlib.suppress(OSError):  # the child was faster
        os.setpgid(pid, pid)
    return pid


_real_spawn = os.posix_spawnp


class SpareProcess:
    """A process that waits to become a script: forked while this one still has no connections and no threads.

    Called as ``subprocess.Popen`` it turns into the script and is its own handle, with what the step uses of that.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            try:
                request, _ = receive(theirs)
            except ValueError:
                os._exit(0)  # the step ended without a script
            _close_from(3)
            _exit_with(lambda: start_program(request["command"], request["env"]))
        theirs.close()
        self._channel = ours

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str]) -> SpareProcess:
        """Start the script."""
        text = json.dumps({"command": list(command), "env": dict(env)}).encode()
        self._channel.sendall(len(text).to_bytes(HEADER_BYTES) + text)
        self._channel.close()
        return self

    def send_signal(self, number: int) -> None:
        """Send a signal to the script."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end of the script and return its exit code; a negative one is a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _restore_signals(numbers: Sequence[int]) -> None:
    """Give signals the handlers that a fresh interpreter has."""
    for number in numbers:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _place(placed: Mapping[int, int]) -> None:
    """Give file descriptors the numbers that the caller knows them by, and close all others."""
    import fcntl

    room = max((2, *placed, *placed.values())) + 1
    high = {target: fcntl.fcntl(given, fcntl.F_DUPFD, room) for target, given in placed.items()}
    for target, descriptor in high.items():
        os.dup2(descriptor, target, inheritable=True)
    kept = {0, 1, 2, *placed}
    for number in _open_descriptors():
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _close_from(first: int) -> None:
    for number in _open_descriptors():
        if number >= first:
            with contextlib.suppress(OSError):
                os.close(number)


def _open_descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  (names, not paths)


def wear(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Take arguments and environment, also in ``/proc``, where tests find processes by them."""
    os.environ.clear()  # before the memory is overwritten, to which C's environment still points
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    arguments, variables = fields[45:47], fields[47:49]
    _overwrite(arguments, command)
    _overwrite(variables, [f"{name}={value}" for name, value in env.items()])
    os.environ.update(env)


def _overwrite(place: Sequence[bytes], texts: Sequence[str]) -> None:
    start, end = (int(address) for address in place)
    written = b"".join(text.encode(errors="surrogateescape") + b"\0" for text in texts)[: end - start - 1]
    ctypes.memmove(start, written.ljust(end - start, b"\0"), end - start)


def _work_plane() -> list[str]:
    """Return the modules of the work plane, except the one that is run."""
    import airflow_mcp.work

    found = pkgutil.walk_packages(airflow_mcp.work.__path__, "airflow_mcp.work.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def main(path: str) -> None:
    """Import everything, then serve."""
    server = Server(path)
    for name in (*PRELOADED, *_work_plane()):
        importlib.import_module(name)
    if "airflow" in sys.modules:
        raise SystemExit("the work plane must not import Airflow")
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1])
