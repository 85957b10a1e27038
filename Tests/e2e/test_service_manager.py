"""A service manager's view (systemd's `sd_notify`): what it hears over its datagram socket, from the start to the end."""

import os
import signal
import socket
import subprocess
import threading

import pytest

import processes
from server import BINARY, DEFAULT_MODEL, wait_until

MOCK = ["mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m"]
WATCHDOG = 0.2


class Manager:
    """Reads all the time, for the kernel keeps only some datagrams. `messages` are those so far, each as its lines."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.path = str(path)
        self.messages = []
        self.variables = {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while (text := self.socket.recv(4096).decode()) != "end":
            self.messages.append(text.split("\n"))

    def count(self, line):
        return sum(line in message for message in self.messages)

    def hear(self, line, times=1, timeout=20):
        """Whether the line comes so many times more."""
        goal = self.count(line) + times
        return wait_until(lambda: self.count(line) >= goal, timeout)

    def close(self):
        """Everything sent so far is in `messages` afterwards."""
        if self.thread.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", self.path)
            self.thread.join(10)
            self.socket.close()

    def states(self):
        """At the end: what was told, but for the watchdog."""
        self.close()
        return [message for message in self.messages if message != ["WATCHDOG=1"]]


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_from_the_start_to_the_end(start_server, manager):
    server = start_server(*MOCK, "--mock-itl-ms", "20", "--shutdown-timeout", "30", environment=manager.variables)
    stream = server.stream("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 50, "ignore_eos": True})
    events = iter(stream)
    next(events)
    server.process.send_signal(signal.SIGTERM)
    assert list(events)[-1] == "[DONE]" and server.wait_exit(10) == 0
    # Draining and then stopping are both STOPPING for a manager.
    assert manager.states() == [["READY=1", "STATUS=serving"], ["STOPPING=1"], ["STOPPING=1"]]
    # It may judge the start, too, by the watchdog: before READY=1.
    assert manager.messages[0] == ["WATCHDOG=1"]
    server.assert_gone()


def test_watchdog_is_fed_as_long_as_the_loop_turns(start_server, manager):
    server = start_server(*MOCK, environment=manager.variables)
    assert manager.hear("WATCHDOG=1", 5)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        assert wait_until(lambda: processes.stat(server.process.pid)[1] == "T", 5)
        assert not manager.hear("WATCHDOG=1", 2, 3 * WATCHDOG), "one may have been on its way"
        assert server.get("/health").status == 200, "the frontend does not need the supervisor's loop"
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert manager.hear("WATCHDOG=1", 2)


def test_lost_parts_are_told(start_server, manager):
    server = start_server(*MOCK, "--restart", "on-failure", environment=manager.variables)
    os.kill(server.child("engine"), signal.SIGKILL)
    assert wait_until(lambda: "The engine is back" in server.log(), 20)
    assert wait_until(lambda: manager.count("READY=1") == 2, 10)
    assert manager.states() == [["READY=1", "STATUS=serving"], ["STATUS=engine lost"], ["READY=1", "STATUS=serving"]]


def test_a_failed_start_is_never_ready(start_server, manager):
    server = start_server(*MOCK, "--engine-binary", "/bin/false", wait=False, environment=manager.variables)
    assert server.wait_exit(10) == 4
    assert not any("READY=1" in message for message in manager.states())
    server.assert_gone()


def test_a_manager_that_is_gone_stops_nobody(start_server, manager):
    manager.close()
    server = start_server(*MOCK, environment=manager.variables)
    assert server.get("/health").status == 200
    server.stop()


class PassedSocket:
    """A listening socket as a service manager passes it: descriptor 3, and variables with the pid of the program."""

    PASS = 'fd=$1; shift; exec 3<&$fd; LISTEN_PID=$$ LISTEN_FDS=${COUNT:-1} exec "$@"'

    def __init__(self, listener):
        self.listener = listener
        listener.set_inheritable(True)

    def command(self, *arguments):
        return ["bash", "-c", self.PASS, "pass", str(self.listener.fileno()), BINARY, *MOCK, *arguments]

    def start(self, *arguments, **options):
        return subprocess.Popen(self.command(*arguments), pass_fds=[self.listener.fileno()], stderr=subprocess.PIPE, text=True, **options)

    def refusal(self, *arguments, **variables):
        result = self.start(*arguments, env=os.environ | variables)
        text = result.communicate(timeout=20)[1]
        assert result.returncode == 2, (result.returncode, text)
        return text.strip().splitlines()[-1]


COMPLETED = b'"completion_tokens":5'


def complete(listener):
    """A request that is sent whether or not anybody serves, on its own connection."""
    connection = socket.socket(listener.family)
    connection.settimeout(20)
    connection.connect(listener.getsockname())
    body = b'{"model": "m", "prompt": "hello", "max_tokens": 5, "ignore_eos": true}'
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Type: application/json\r\n"
                       + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def answer(connection):
    with connection, connection.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_socket_that_the_manager_passes(family, tmp_path):
    address = ("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "s")
    with socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        passed = PassedSocket(listener)
        named = ["--port", str(listener.getsockname()[1])] if family == "tcp" else ["--uds", address]
        for arguments in ([], named):
            # Comes before there is a service, and after the one of the last turn has ended.
            early = complete(listener)
            service = passed.start(*arguments)
            try:
                # The frontend may be there before the engine is.
                head, _, body = answer(early).partition(b"\r\n\r\n")
                assert COMPLETED in body or b" 503 " in head and b"retry-after: 1" in head.lower() and b"still starting" in body
                assert wait_until(lambda: COMPLETED in answer(complete(listener)), 20)
                known = processes.descendants(service.pid)
                service.send_signal(signal.SIGTERM)
                assert service.wait(10) == 0
            finally:
                service.kill()
                service.communicate()
            assert wait_until(lambda: not processes.alive(known), 5)
        if family == "unix":
            assert (tmp_path / "s").exists()


def test_what_cannot_be_served_of_a_manager(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        passed = PassedSocket(listener)
        assert "leave --host, --port and --uds out" in passed.refusal("--uds", str(tmp_path / "s"))
        assert "leave --host, --port and --uds out" in passed.refusal("--port", "1")
        assert "leave --host, --port and --uds out" in passed.refusal("--host", "::1")
        assert "--split needs sockets of its own" in passed.refusal("--frontend", "swift,swift", "--split", "1/1")
        assert "one socket is served" in passed.refusal(COUNT="2")
        assert "no listening stream socket" in PassedSocket(other).refusal()
