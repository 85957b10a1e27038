"""The rows of the table: one process fault each, what ours does with it (measured now), what vLLM did when it was measured."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from service import BINARY, COMPLETION, ENGINE, MOCK, ROOT, Client, Service, expect, http_client, processes, wait_until
from stepwise import StepwiseService

RESTART = ["--restart", "on-failure"]
RUNNING = 8
FOLDERS = []


def ms(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def flowing(service, count=RUNNING, tokens=4000):
    clients = [Client(service.port, tokens) for _ in range(count)]
    for client in clients:
        client.wait_for(5)
    service.remember_processes()
    return clients


def last_line(service):
    return service.log().strip().splitlines()[-1]


def folder():
    """A new folder that goes with this process."""
    FOLDERS.append(tempfile.TemporaryDirectory(prefix="chaos-"))
    return pathlib.Path(FOLDERS[-1].name)


def script(text):
    """A program of these lines of shell; `$ENGINE` is the real one."""
    path = folder() / "program"
    path.write_text(f"#!/bin/bash\nENGINE={ENGINE}\n{text}\n")
    path.chmod(0o755)
    return str(path)


# Says HELLO as engine 0 without ever getting ready, and only then becomes the real engine, which says it too.
HELLO_FIRST = r"""
import os, socket, struct, sys
words = sys.argv[1:]
handshake = socket.socket(socket.AF_UNIX)
handshake.connect(words[words.index("--handshake-address") + 1].removeprefix("ipc://"))
greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER" + b"\x08Identity" + struct.pack(">I", 2) + bytes(2)
hello = b"\x83\xa6status\xa5HELLO\xa5local\xc3\xa8headless\xc2"
received = b""
for message, answer in ((greeting + b"\x04" + bytes([len(ready)]) + ready, b"READY"), (b"\x00" + bytes([len(hello)]) + hello, b"addresses")):
    handshake.sendall(message)
    while answer not in received:
        received += handshake.recv(4096) or sys.exit("the supervisor hung up")
os.set_inheritable(handshake.fileno(), True)
os.execv(words[0], words)
"""


def failing_start(*args, text="", deadline=20, **kwargs):
    """Starts a service that cannot come up; returns its exit code and last line."""
    with Service(*args, **kwargs) as service:
        code = service.exit_code(deadline)
        service.gone()
        expect(text in service.log(), f"no '{text}' in the log: {service.log()[-1500:]}")
        return code, last_line(service)


def p1():
    with Service().wait_ready() as service:
        clients = flowing(service)
        at = service.kill("engine")
        expect({client.ending() for client in clients} == {"error"}, "not every stream ended with an error")
        told = max(client.ended_at for client in clients) - at
        code = service.exit_code()
        down = time.monotonic() - at
        service.gone()
        expect(code == 1, f"exit code {code}")
    with Service(*RESTART).wait_ready() as service:
        clients = flowing(service)
        at = service.kill("engine")
        endings = {client.ending() for client in clients}
        expect(endings == {"error"}, f"streams ended {endings}")
        expect(wait_until(service.answers, 20), "no answer after the restart")
        back = time.monotonic() - at
        service.stop()
    return f"event + [DONE] after {ms(told)}; down in {ms(down)}, exit 1; with --restart on-failure serving after {ms(back)}"


def p2():
    with Service("--engine-hang-timeout", "2").wait_ready() as service:
        [client] = flowing(service, 1, 600)
        engine = service.child("engine")
        os.kill(engine, signal.SIGSTOP)
        at = time.monotonic()
        expect(wait_until(lambda: not service.ready("/health/ready"), 15), "ready although the engine hangs")
        noticed = time.monotonic() - at
        live, health = service.ready("/health/live"), service.ready("/health")
        hung = service.metric("vllm:engine_hung")
        refused = service.post("/v1/completions", COMPLETION)
        expect((refused.status, refused.headers.get("retry-after")) == (503, "5"), f"a new request: {refused}")
        os.kill(engine, signal.SIGCONT)
        at = time.monotonic()
        expect(wait_until(lambda: service.ready("/health/ready"), 15), "not ready after SIGCONT")
        back = time.monotonic() - at
        expect(live and health and hung == 1, f"live {live}, health {health}, metric {hung}")
        expect(client.ending() == "done", "the stream did not resume")
        service.stop()
    return f"ready 503 after {ms(noticed)} (limit 2 s), live 200, metric 1, new requests 503 + Retry-After; resumes, ready again in {ms(back)}"


def stop_with_streams(service, clients):
    """Seconds from SIGTERM to the end of everything, with an event for every open stream."""
    at = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    code = service.exit_code()
    took = time.monotonic() - at
    expect({client.ending() for client in clients} == {"error"}, "not every stream has a terminal event")
    service.gone()
    expect(code == 0, f"exit code {code}")
    return took


def p3():
    with Service().wait_ready() as service:
        took = stop_with_streams(service, flowing(service))
    return f"event + [DONE] for all; {ms(took)}; exit 0; nothing left"


def p4():
    with Service("--shutdown-timeout", "30").wait_ready() as service:
        clients = flowing(service, 50, 400)
        service.process.send_signal(signal.SIGTERM)
        expect(wait_until(lambda: not service.ready("/health/ready"), 10), "still ready")
        refused = [service.post("/v1/completions", COMPLETION | {"max_tokens": 1}) for _ in range(5)]
        expect({(r.status, r.headers.get("retry-after")) for r in refused} == {(503, "1")}, f"new requests: {refused}")
        expect([client.ending() for client in clients] == ["done"] * 50, "not every stream completed")
        expect(service.exit_code() == 0, "exit code")
        service.gone()
    return "50 of 50 complete, new ones 503 + Retry-After, ready 503, exit 0"


def p5():
    with Service("--shutdown-timeout", "60").wait_ready() as service:
        clients = flowing(service)
        service.process.send_signal(signal.SIGQUIT)
        expect(wait_until(lambda: "EngineCore pid" in service.log(), 5), "no dump on SIGQUIT")
        service.process.send_signal(signal.SIGINT)
        expect(wait_until(lambda: "-> draining" in service.log(), 5), "no drain")
        took = stop_with_streams(service, clients)
    return f"second signal ends a drain in {ms(took)}, streams with event + [DONE]; SIGQUIT logs the state"


def p6():
    with Service().wait_ready() as service:
        flowing(service)
        service.process.kill()
        service.process.wait(10)
        took = service.gone()
    return f"nothing alive, port free, no file after {ms(took)}"


def p7():
    with Service().wait_ready() as service:
        engine = service.child("engine")
        clients = flowing(service, 2)
        at = service.kill("frontend")
        expect(wait_until(service.answers, 20), "no answer after the restart")
        took = time.monotonic() - at
        expect(service.child("engine") == engine, "the engine was not kept")
        expect({client.ending() for client in clients} == {"cut"}, "endings")
        service.stop()
    return f"answers again after {ms(took)}, engine kept"


# What the supervisor logs of its start with VLLM_LOGGING_LEVEL=DEBUG, in order; the engines' steps may change places.
STEPS = ["signals caught", "bound", "orphan guard started", "runtime directory created", "control socket open", "stale runs swept",
         "coordinator started", "engine sockets open", "handshake socket open", "engines spawned", "spawned", "HELLO from engine",
         "READY from engine", "engine ready", "frontend ready"]


def p8():
    """A signal that comes while the service cannot have written the line of the next step."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for step in STEPS:
            line = step if " from engine" in step else f"Start-up step: {step}\n"
            with StepwiseService(line, "--data-parallel-size", "2", environment={"VLLM_LOGGING_LEVEL": "DEBUG"}) as service:
                service.remember_processes()
                service.process.send_signal(number)
                service.go_on()
                code = service.exit_code()
                service.gone()
                expect(code == (0 if number == signal.SIGTERM else -number), f"exit code {code} after '{step}'")
    return f"SIGTERM and SIGKILL after each of {len(STEPS)} steps and before the next one: clean each time"


def p9():
    results = []
    with socket.create_server(("127.0.0.1", 0)) as holder:
        at = time.monotonic()
        result = subprocess.run([BINARY, "--port", str(holder.getsockname()[1])], capture_output=True, text=True, timeout=20)
        results.append(time.monotonic() - at)
        expect(result.returncode == 3 and f"pid {os.getpid()}" in result.stderr, result.stderr)
    path = str(folder() / "http.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with Service("--uds", path) as service:
        expect(wait_until(lambda: "Try it" in service.log(), 20), f"dead socket file: {service.log()[-800:]}")
        at = time.monotonic()
        second = subprocess.run([BINARY, *MOCK, "--uds", path], capture_output=True, text=True, timeout=20)
        results.append(time.monotonic() - at)
        expect(second.returncode == 3 and "held by pid" in second.stderr, second.stderr)
        service.process.send_signal(signal.SIGTERM)
        expect(service.exit_code() == 0, "exit code")
        service.gone()
    expect(not os.path.exists(path), "the socket file is still there")
    return f"port: {ms(results[0])}, names pid and command; dead UDS replaced; live UDS refused with pid in {ms(results[1])}; exit 3"


def in_namespace(*words):
    """The words in a mount namespace of their own; None where that is not allowed."""
    for prefix in (["unshare", "-m"], ["unshare", "-rm"]):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, timeout=10).returncode == 0:
                return [*prefix, *words]
        except OSError:
            return None
    return None


def p10():
    results = []
    with Service() as service:
        service.wait_ready()
        stale = service.scratch / "vllm-engine-1-1"
        stale.mkdir()
        (stale / "left.sock").touch()
        with Service(environment={"VLLM_RPC_BASE_PATH": str(service.scratch)}).wait_ready() as second:
            expect(not stale.exists(), "a dead run's directory is still there")
            second.process.send_signal(signal.SIGTERM)
            expect(second.exit_code() == 0, "exit code")
        results.append("stale files removed")
        service.stop()
    environment = {key: value for key, value in os.environ.items() if key not in ("VLLM_RPC_BASE_PATH", "XDG_RUNTIME_DIR")}
    port = processes.free_port()
    serve = " ".join([BINARY, *MOCK, "--port", str(port)])

    def healthy():
        try:
            return http_client.request(port, "GET", "/health", timeout=2).status == 200
        except OSError:
            return False

    for name, mount, code in (
            ("read-only /tmp", "mount -t tmpfs -o ro none /tmp", 2),
            ("full /tmp", "mount -t tmpfs -o size=4k,nr_inodes=3 none /tmp; touch /tmp/a /tmp/b", 2),
            ("no /dev/shm", "umount -l /dev/shm 2>/dev/null || mount -t tmpfs -o ro none /dev/shm", 0)):
        # The programs may themselves lie in the folder that disappears.
        words = in_namespace("bash", "-c", f"mount --bind {ROOT} /mnt; {mount}; exec {serve.replace(str(ROOT), '/mnt')}")
        if words is None:
            results.append(f"{name}: not tried (no mount namespaces here)")
            continue
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as process:
            if code == 0:
                if wait_until(healthy, 20):
                    process.terminate()
                else:
                    process.kill()
            errors = process.communicate(timeout=30)[1]
        expect(process.returncode == code, f"{name}: exit {process.returncode} {errors[-1500:]}")
        expect(code == 0 or "/tmp" in errors, f"{name}: {errors[-800:]}")
        results.append(f"{name}: works" if code == 0 else f"{name}: named in the error, exit {code}")
    return "; ".join(results)


def p11():
    found = []

    def check(name, text, code, *args, **kwargs):
        got, line = failing_start(*args, text=text, **kwargs)
        expect(got == code, f"{name}: exit {got}, {line}")
        found.append(f"{name}: {got}")

    check("exits during the handshake", "ended during start-up", 4, "--engine-binary",
          script('exec "$ENGINE" "$@" --model /no/such/folder'))
    check("never connects", "has not connected", 4, "--engine-binary", script("exec sleep 100"),
          environment={"VLLM_ENGINE_READY_TIMEOUT_S": "1"})
    check("connects twice", "connected twice", 4, "--engine-binary",
          script(f"exec {sys.executable} -c '{HELLO_FIRST}' \"$ENGINE\" \"$@\""))
    check("wrong identity", "unexpected identity", 4, "--engine-binary",
          script('exec "$ENGINE" "$@" --engine-index 5'))
    check("wrong version", "protocol-version", 4, "--engine-binary", script('exec "$ENGINE" "$@" --protocol-version 9.9'))
    with Service().wait_ready() as service:
        service.remember_processes()
        os.kill(service.child("engine"), signal.SIGTERM)
        expect(service.exit_code() == 1 and "exit status 0" in last_line(service), last_line(service))
        service.gone()
    return "each with its own message; exit code " + ", ".join(["exits 0 while serving: 1", *found])


def p12():
    once = folder() / "once"
    program = script(f'if [ -e {once} ]; then exit 9; fi\ntouch {once}\nexec "$ENGINE" "$@"')
    with Service(*RESTART, "--restart-max", "4/10m", "--engine-binary", str(program)).wait_ready() as service:
        at = service.kill("engine")
        code = service.exit_code(30)
        took = time.monotonic() - at
        expect(code == 1 and "restarted 4 times already" in last_line(service), last_line(service))
        service.gone()
    return f"4 starts with pauses of 0, 0.25, 0.5, 1 s, then exit 1 after {ms(took)}"


def p13():
    prefix = None
    for words in (["unshare", "-p", "-f", "--mount-proc"], ["unshare", "-r", "-p", "-f", "--mount-proc"]):
        if subprocess.run([*words, "true"], capture_output=True, timeout=10).returncode == 0:
            prefix = words
            break
    if prefix is None:
        return "not tried (no pid namespaces here)"
    port = processes.free_port()
    # The engine's wrapper leaves orphans behind, which only pid 1 can reap.
    program = script('for i in 1 2 3 4 5; do (sleep 0.1 & ) ; done\nexec "$ENGINE" "$@"')
    # One that ended just now is none yet that is left.
    zombies = "for i in $(seq 200); do n=$(cat /proc/[0-9]*/stat | grep -c ') Z '); [ $n = 0 ] && break; sleep 0.05; done; echo $n"
    scratch = tempfile.mkdtemp(prefix="chaos-", dir="/tmp")
    service = subprocess.Popen(
        [*prefix, "bash", "-c", f"( while ! [ -e {scratch}/stop ]; do sleep 0.05; done; ({zombies}) > {scratch}/zombies; kill 1 ) & "
         f"exec {' '.join([BINARY, *MOCK, '--port', str(port), '--engine-binary', str(program)])}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"VLLM_RPC_BASE_PATH": scratch})
    try:
        def healthy():
            try:
                return http_client.request(port, "GET", "/health", timeout=2).status == 200
            except OSError:
                return False
        expect(wait_until(healthy, 30), "not ready as pid 1")
        time.sleep(0.5)  # the orphans end by themselves
        pathlib.Path(scratch, "stop").touch()
        output = service.communicate(timeout=20)[0]
        count = pathlib.Path(scratch, "zombies").read_text().split()[0]
        expect(count == "0", f"{count} zombies\n{output[-1500:]}")
        expect(service.returncode == 0, f"exit {service.returncode}\n{output[-1500:]}")
    finally:
        if service.poll() is None:
            os.killpg(service.pid, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)
    return "reaps orphans (0 zombies), SIGTERM to pid 1: exit 0"


def h9():
    """The kernel's queue holds those for whom there is no descriptor; without a pause accepting would be a busy loop."""
    with Service().wait_ready() as service:
        frontend = service.child("frontend")
        resource.prlimit(frontend, resource.RLIMIT_NOFILE, (256, 256))
        sockets = []
        try:
            for _ in range(400):
                connection = socket.create_connection(("127.0.0.1", service.port), 10)
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")  # not finished: it is held open
                sockets.append(connection)
            expect(wait_until(lambda: len(os.listdir(f"/proc/{frontend}/fd")) >= 250, 10), "not exhausted")
            before = processes.cpu_seconds(frontend)
            time.sleep(2)
            share = (processes.cpu_seconds(frontend) - before) / 2
            sockets[0].sendall(b"\r\n")
            expect(sockets[0].recv(100).startswith(b"HTTP/1.1 200"), "an open connection is not served")
        finally:
            for connection in sockets:
                connection.close()
        expect(wait_until(service.answers, 20), "does not recover")
        expect(share < 0.3, f"spins: {share:.0%} of a processor")
        expect(service.child("frontend") == frontend, "the frontend was restarted")
        service.stop()
    return f"the rest wait in the queue, {share:.0%} of a processor; open ones are served; recovers"


def lifecycle():
    with Service().wait_ready() as service:
        startup = json.loads(service.get("/health/startup").body)
        service.stop()
    at = time.monotonic()
    subprocess.run([BINARY, "--version"], capture_output=True, timeout=10)
    version = time.monotonic() - at
    phases = ", ".join(f"{phase['name']} {ms(phase['at_seconds'])}" for phase in startup["phases"])
    return f"--version {ms(version)}; {phases}"


# name, fault, vLLM 0.32 with its Python frontend, with vllm-rs, ours
ROWS = [
    ("P1", "kill -9 engine in mid-stream", "event + [DONE] after 2.6 s; down in 6.6 s, exit 0", "stream cut, no event; down in 13 s, exit 1", p1),
    ("P2", "SIGSTOP engine, then SIGCONT", "health 200, silent, resumes", "health 200, silent, resumes", p2),
    ("P3", "SIGTERM, default", "not measured", "stream cut, no event; up to 10 s, exit 0, leaked shm", p3),
    ("P4", "SIGTERM, 30 s to drain, 50 streams, new requests", "not measured", "not measured", p4),
    ("P5", "second signal; SIGINT; SIGQUIT", "not measured", "not measured", p5),
    ("P6", "kill -9 supervisor", "not measured", "every child alive after 88 s", p6),
    ("P7", "kill -9 frontend", "not measured", "stream cut, connects hang 3 s, all down in 10 s, exit 1", p7),
    ("P8", "kill after each of 15 steps of the start", "not measured", "not measured", p8),
    ("P9", "port or unix socket in use", "not measured", "31.5 s, exit 1", p9),
    ("P10", "stale files, full or read-only /tmp, no /dev/shm", "not measured", "not measured", p10),
    ("P11", "engine: exits, never or twice there, wrong identity, version", "not measured", "not measured", p11),
    ("P12", "restart storm", "no restart", "no restart", p12),
    ("P13", "as pid 1 with orphans", "not measured", "not measured", p13),
    ("H9", "256 descriptors, 400 clients", "not measured", "not measured", h9),
    ("start", "time to --version and to the first answer", "6 s for --version (reported)", "not measured", lifecycle),
]
