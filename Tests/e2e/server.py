"""Starts a real vllm-engine on a free port, talks to it, and makes sure that nothing of it stays behind."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import http_client
import processes

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("VLLM_ENGINE_BIN", str(ROOT / ".build/release/vllm-engine"))
DEFAULT_MODEL = ROOT / "Engine/models/default"
START_DEADLINE = 12
GONE_DEADLINE = 2.0
# Nothing is judged by its speed here: deadlines only keep a failed test from waiting for ever. (`tools/chaos` measures.)
PATIENCE = float(os.environ.get("VLLM_E2E_PATIENCE", "5"))
CHILDREN = {"frontend": ("vllm-swift", "vllm-rs"), "engine": ("blas-engine",)}


def wait_until(condition, deadline, interval=0.01):
    """Polls; returns the last value of the condition, true or not. A slow machine has `PATIENCE` times the deadline."""
    end = time.monotonic() + deadline * PATIENCE
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(interval)
    return value


class Server:
    def __init__(self, *args, host="127.0.0.1", port=None, environment=None, output=None):
        self.host, self.port = host, port or processes.free_port()
        self.marker = f"e2e-{uuid.uuid4().hex}"
        # Everything temporary of the server goes here (unix socket paths must be short), so leftovers are seen.
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
        os.chmod(self.scratch, 0o700)
        self.shared_memory_before = processes.shared_memory()
        # What follows `--` is for the engine.
        end = args.index("--") if "--" in args else len(args)
        self.args = [BINARY, *args[:end], "--host", host, "--port", str(self.port), *args[end:]]
        self.log_file = tempfile.NamedTemporaryFile(prefix="e2e-log-", suffix=".txt", delete=False)
        self.log_text = None  # kept when the file goes: after a clean stop
        variables = {"VLLM_E2E_MARKER": self.marker, "TMPDIR": str(self.scratch), "XDG_RUNTIME_DIR": str(self.scratch),
                     "VLLM_RPC_BASE_PATH": str(self.scratch), "NO_COLOR": "1"}
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=output or self.log_file, stderr=subprocess.STDOUT,
                                        start_new_session=True, env=os.environ | variables | (environment or {}))
        self.known = processes.descendants(self.process.pid)

    # ---- observing ----

    def log(self):
        return self.log_text if self.log_text is not None else pathlib.Path(self.log_file.name).read_text(errors="replace")

    def fail(self, message):
        raise AssertionError(f"{message}\ncommand: {' '.join(self.args)}\n--- log ---\n{self.log()[-6000:]}")

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                self.fail(f"vllm-engine exited with {self.process.returncode} while starting")
            try:
                healthy = self.get("/health", timeout=5).status == 200
                # The supervisor asks by itself; before it knows, a death counts as a failed start.
                return healthy and "Try it" in self.log()
            except OSError:
                return False
        if not wait_until(ready, START_DEADLINE):
            self.kill_everything()
            self.fail(f"/health was not 200 within {START_DEADLINE * PATIENCE:.0f} s")
        self.remember_processes()
        return self

    def wait_exit(self, deadline):
        """Exit code; the process is killed (and the test fails) when it does not end in time."""
        try:
            return self.process.wait(deadline * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            self.fail(f"vllm-engine did not exit within {deadline * PATIENCE:.0f} s")

    def remember_processes(self):
        self.known |= processes.descendants(self.process.pid) | processes.marked(self.marker)
        return self.known

    def child(self, role):
        """Pid of the frontend or of the engine."""
        for pid in processes.descendants(self.process.pid):
            if processes.program(pid).startswith(CHILDREN[role]):
                return pid
        self.fail(f"no {role} among the children: {[processes.command(p) for p in self.known]}")

    def metric(self, name):
        """Sum of a metric over its labels."""
        text = self.get("/metrics", timeout=10).body.decode()
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        assert values, f"{name} is not in /metrics"
        return sum(values)

    def leftovers(self):
        """What of this server still exists: processes, the port, files of the runtime directory, shared memory."""
        self.process.poll()
        left = [f"process {pid}: {text}" for pid, text in processes.alive(self.known | processes.marked(self.marker)).items()]
        if self.port and processes.is_listened_at(self.port):
            left.append(f"port {self.port} is taken")
        # os.walk, unlike rglob, takes it calmly that a folder vanishes meanwhile.
        left += [f"file {folder}/{name}" for folder, folders, files in os.walk(self.scratch) for name in folders + files]
        left += [f"shared memory {name}" for name in processes.shared_memory() - self.shared_memory_before]
        return left

    # ---- ending ----

    def stop(self, deadline=10.0):
        """Ends the server as a user would and checks that nothing is left. Stopping again does nothing."""
        if self.log_text is not None:
            return
        try:
            if self.process.poll() is None:
                self.remember_processes()
                self.process.send_signal(signal.SIGTERM)
                self.wait_exit(deadline)
            self.assert_gone()
            self.log_text = self.log()
            os.unlink(self.log_file.name)
        finally:
            self.kill_everything()

    def assert_gone(self, deadline=GONE_DEADLINE):
        wait_until(lambda: not self.leftovers(), deadline)
        left = self.leftovers()
        if left:
            self.fail(f"left behind after {deadline * PATIENCE:.0f} s:\n  " + "\n  ".join(left))
        self.process.wait(1)  # at most a zombie now: collects its exit code

    def kill_everything(self):
        """Cleans up after a failed test; ends only processes that this server started."""
        for pid in processes.alive(self.known | processes.marked(self.marker)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(10)
        shutil.rmtree(self.scratch, ignore_errors=True)

    # ---- requests ----

    def get(self, path, **kwargs):
        return http_client.request(self.port, "GET", path, host=self.host, **kwargs)

    def post(self, path, body, **kwargs):
        return http_client.request(self.port, "POST", path, body, host=self.host, **kwargs)

    def chat(self, content, **fields):
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        return self.post("/v1/chat/completions", {"messages": messages, "temperature": 0, **fields})

    def stream(self, path, body, **kwargs):
        return http_client.Stream(self.port, path, body | {"stream": True}, host=self.host, **kwargs)


def command(server, *args, timeout=30):
    """Runs `vllm-engine ARGS` so that it sees only this server."""
    scope = {"VLLM_RPC_BASE_PATH": str(server.scratch), "XDG_RUNTIME_DIR": str(server.scratch)}
    return subprocess.run([BINARY, *args, "--pid", str(server.process.pid)], capture_output=True, text=True,
                          timeout=timeout, env=os.environ | scope)


def status(server):
    result = command(server, "status", "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
