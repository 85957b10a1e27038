"""`vllm-engine swap`: another frontend takes over under load, and no request fails."""

import json
import os
import signal
import threading

import pytest

import processes
from foreign import RUST, needs_rust
from load import BackgroundStream
from server import command, status, wait_until

SWAPS = int(os.environ.get("VLLM_E2E_SWAPS", "5"))


def frontends(server):
    """{role: pid}"""
    return {process["role"]: process["pid"] for process in status(server)["processes"] if process["role"] != "engine"}


class Requests:
    """Short completions, one after the other on new connections, until told to stop."""

    def __init__(self, server, threads=4):
        self.server = server
        self.answers, self.failures = 0, []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopping.is_set():
            body = {"model": "m", "prompt": "hello", "max_tokens": 3, "ignore_eos": True}
            try:
                answer = self.server.post("/v1/completions", body, timeout=20)
                if answer.status != 200 or answer.json()["choices"][0]["finish_reason"] != "length":
                    self.failures.append((answer.status, answer.body))
                self.answers += 1
            except Exception as error:
                self.failures.append(repr(error))

    def wait_for_more(self, count):
        goal = self.answers + count
        assert wait_until(lambda: self.answers >= goal, 30)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
        return self.failures


def test_swap_under_load_fails_no_request(start_mock):
    server = start_mock()
    engine = server.child("engine")
    load = Requests(server)
    load.wait_for_more(20)
    for _ in range(SWAPS):
        before = frontends(server)["frontend"]
        stream = BackgroundStream(server, 40)
        stream.wait_for_tokens(2)
        result = command(server, "swap", "--frontend", "swift")
        assert result.returncode == 0, result.stderr + server.log()[-3000:]
        lines = result.stdout.splitlines()
        assert lines[0] == "starting" and lines[1].startswith("switched after ") and lines[2] == "done"
        events = stream.finish()
        assert events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        after = frontends(server)
        assert set(after) == {"frontend"} and after["frontend"] != before
        load.wait_for_more(20)
    assert load.stop() == []
    assert server.child("engine") == engine
    sockets = [path for path in server.scratch.rglob("*.sock") if path.name != "control.sock"]
    assert len(sockets) == 3, "two of the serving frontend, one for the handshake"
    # The metrics of the one that serves now know the engine's state.
    assert wait_until(lambda: server.metric("vllm:num_requests_running") == 0, 5)


def test_swap_of_several_frontends(start_mock):
    server = start_mock("--api-server-count", "3")
    pids = lambda: {process["pid"] for process in status(server)["processes"] if process["role"] == "frontend"}
    load = Requests(server, threads=8)
    load.wait_for_more(40)
    for _ in range(2):
        before = pids()
        streams = [BackgroundStream(server, 40) for _ in range(6)]
        for stream in streams:
            stream.wait_for_tokens(2)
        result = command(server, "swap", "--frontend", "swift")
        assert result.returncode == 0, result.stderr + server.log()[-3000:]
        for stream in streams:
            events = stream.finish()
            assert events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert len(pids()) == 3 and not pids() & before
        load.wait_for_more(40)
    assert load.stop() == []
    # Each shows the sums of its generation; one of them that dies is replaced as before.
    assert wait_until(lambda: server.metric("vllm:num_requests_running") == 0, 5)
    os.kill(min(pids()), signal.SIGKILL)
    assert wait_until(lambda: sum(p["state"] == "running" for p in status(server)["processes"] if p["role"] == "frontend") == 3, 10)


def test_one_of_several_new_frontends_that_fails_changes_nothing(start_mock, tmp_path):
    server = start_mock("--api-server-count", "2")
    result = command(server, "swap", "--frontend", "swift", "--frontend-binary", "/bin/true")
    assert result.returncode == 1 and "exit status 0" in result.stderr, result
    assert len([p for p in status(server)["processes"] if p["role"] == "frontend"]) == 2
    assert command(server, "swap", "--frontend", "swift").returncode == 0


def test_a_program_that_does_not_answer_stops_nothing(start_mock, tmp_path):
    """Asking it what it is takes five seconds, in which the supervisor does everything else."""
    server = start_mock()
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    answer = []
    swap = threading.Thread(target=lambda: answer.append(command(server, "swap", "--frontend", str(slow))))
    swap.start()
    assert wait_until(lambda: any("sleep 100" in processes.command(pid) for pid in processes.descendants(server.process.pid)), 10)
    second = command(server, "swap", "--frontend", "swift")
    assert "another swap is under way" in second.stderr, second
    os.kill(server.child("frontend"), signal.SIGKILL)
    assert wait_until(lambda: "The frontend is back" in server.log(), 10)
    assert not answer, "the frontend was replaced while the program was silent"
    swap.join(20)
    assert answer[0].returncode == 1 and "does not answer" in answer[0].stderr
    assert not any("sleep 100" in processes.command(pid) for pid in processes.descendants(server.process.pid))


def test_new_frontend_that_fails_changes_nothing(start_mock, tmp_path):
    server = start_mock()
    before = frontends(server)
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\ncase \"$*\" in *--help) echo --listen-fd --input-listener-fd --data-parallel-size;;"
                      " --version) echo x 0.33.0;; *) echo 'ERROR broken' >&2; exit 3;; esac\n")
    broken.chmod(0o755)
    result = command(server, "swap", "--frontend", str(broken))
    assert result.returncode == 1 and "exit status 3" in result.stderr, result
    assert frontends(server) == before
    assert server.post("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 2}).status == 200
    # And a later one succeeds.
    assert command(server, "swap", "--frontend", "swift").returncode == 0


@pytest.mark.parametrize("args, text", [
    (["--frontend", "/no/such/program"], "not an executable file"),
    (["--frontend", "swift", "--frontend-binary", "/bin/true"], "exit status 0"),
])
def test_impossible_swap_is_refused(start_mock, args, text):
    server = start_mock()
    result = command(server, "swap", *args)
    assert result.returncode == 1 and text in result.stderr, result
    assert len(frontends(server)) == 1


def test_crash_after_a_swap_is_repaired(start_mock):
    """The restart policy holds for the new frontend, on its own sockets."""
    server = start_mock()
    assert command(server, "swap", "--frontend", "swift").returncode == 0
    os.kill(frontends(server)["frontend"], signal.SIGKILL)
    assert wait_until(lambda: "The frontend is back" in server.log(), 10)
    assert server.post("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 2}).status == 200


def test_stop_while_the_old_frontend_finishes(start_mock):
    server = start_mock()
    stream = BackgroundStream(server, 4000)
    stream.wait_for_tokens(5)
    swap = threading.Thread(target=command, args=(server, "swap", "--frontend", "swift"))
    swap.start()
    assert wait_until(lambda: "frontend, draining" in frontends(server), 20)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_exit(15) == 0
    events = stream.finish()
    assert events[-1] == "[DONE]", "the stream of the old frontend has its end, too"
    swap.join(10)
    server.assert_gone()


# Of 0.33, the release our own frontend speaks.
@needs_rust
def test_swap_to_rust_and_back(start_mock):
    server = start_mock()
    load = Requests(server, threads=2)
    load.wait_for_more(5)
    stream = BackgroundStream(server, 100)
    stream.wait_for_tokens(2)
    result = command(server, "swap", "--frontend", "rust", "--frontend-binary", RUST)
    assert result.returncode == 0, result.stderr + server.log()[-3000:]
    assert stream.finish()[-1] == "[DONE]"
    load.wait_for_more(5)
    assert processes.program(frontends(server)["frontend"]).startswith("vllm-rs")
    # vLLM's frontend cuts what is open when it has no time to finish it.
    assert load.stop() == []
    assert command(server, "swap", "--frontend", "swift").returncode == 0
    assert server.post("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 2}).status == 200
