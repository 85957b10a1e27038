"""Kill rounds: a service, clients, one or two blows at random moments, and what must hold afterwards.

After every round: no process of it alive, port free, runtime directory gone, every stream ended exactly once (and not cut
while a frontend lived that could end it), exit code as documented.
"""

import collections
import os
import random
import signal
import time

from service import Client, Failure, Service, expect, processes, wait_until

RESTART = ["--restart", "on-failure"]
NEVER = ["--restart", "never"]
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class Round:
    def __init__(self, rng):
        self.rng = rng
        self.clients = []

    def start(self, *args, wait=True):
        self.service = Service(*args)
        if wait:
            self.service.wait_ready()
        return self.service

    def load(self):
        """Some clients, some way into their streams."""
        for _ in range(self.rng.randint(0, 12)):
            self.clients.append(Client(self.service.port, self.rng.choice([3, 30, 200, 2000])))
        for client in self.clients:
            # At least one event: a connection that was not even accepted has no end to give account of.
            client.wait_for(self.rng.randint(1, 20) if client.tokens > 20 else 1)
        self.service.remember_processes()

    def pause(self, longest):
        time.sleep(self.rng.uniform(0, longest))

    def endings(self, *allowed):
        found = collections.Counter(client.ending() for client in self.clients)
        expect(set(found) <= set(allowed), f"streams ended as {dict(found)}, allowed are {allowed}")

    def more(self):
        """The service serves again, on the same port."""
        expect(wait_until(self.service.answers, 20), "no answer after the restart")

    def end(self, code, deadline=20, gone=2.0):
        expect(self.service.exit_code(deadline) == code,
               f"exit code {self.service.process.returncode} instead of {code}")
        self.service.gone(gone)

    def kill_supervisor(self):
        self.service.remember_processes()
        self.service.process.kill()
        self.service.process.wait(10)
        self.service.gone()

    def recover(self, *allowed):
        """What was struck works again; the streams ended in one of these ways."""
        self.more()
        self.endings(*allowed)
        self.stop()

    def stop(self):
        self.service.remember_processes()
        self.service.process.send_signal(signal.SIGTERM)
        self.end(0)


def stop_signal(r):
    r.start()
    r.load()
    r.service.process.send_signal(r.rng.choice(STOPS))
    r.end(0)
    r.endings("done", "error")


def stop_with_drain(r):
    r.start("--shutdown-timeout", "30")
    r.load()
    r.service.process.send_signal(signal.SIGTERM)
    r.end(0, deadline=40)
    r.endings("done")


def stop_twice(r):
    """The second signal may come at any moment of the drain, or after its end."""
    r.start("--shutdown-timeout", "30")
    r.load()
    r.service.process.send_signal(signal.SIGTERM)
    r.pause(0.2)
    r.service.process.send_signal(r.rng.choice(STOPS))
    r.end(0)
    r.endings("done", "error")


def stop_while_starting(r):
    r.start(wait=False)
    r.pause(0.4)
    r.service.remember_processes()
    number = r.rng.choice(STOPS)
    r.service.process.send_signal(number)
    # Before the first instruction of ours the kernel's default applies.
    code = r.service.exit_code()
    expect(code in (0, -number), f"exit code {code}")
    r.service.gone()


def kill_supervisor(r):
    r.start()
    r.load()
    r.kill_supervisor()
    r.endings("done", "cut")


def kill_supervisor_while_starting(r):
    r.start(wait=False)
    r.pause(0.4)
    r.kill_supervisor()


def kill_supervisor_while_stopping(r):
    r.start("--shutdown-timeout", "30")
    r.load()
    r.service.process.send_signal(signal.SIGTERM)
    r.pause(0.1)
    r.kill_supervisor()
    r.endings("done", "cut", "error")


def kill_engine(r):
    r.start(*NEVER)
    r.load()
    r.service.kill("engine")
    r.end(1)
    r.endings("done", "error")


def kill_engine_restart(r):
    r.start(*RESTART)
    for _ in range(r.rng.randint(1, 2)):
        r.load()
        r.service.kill("engine")
        r.more()
    r.recover("done", "error", "refused")


def kill_one_of_two_engines(r):
    r.start(*RESTART, "--data-parallel-size", "2")
    r.load()
    r.service.kill("engine")
    r.recover("done", "error", "refused")


def kill_engine_while_it_restarts(r):
    """The blow falls on whatever the successor is doing: forking, loading, registering, serving."""
    r.start(*RESTART)
    r.load()
    r.service.kill("engine")
    r.pause(0.2)
    engine = [pid for pid in processes.descendants(r.service.process.pid) if processes.program(pid) == "blas-engine"]
    for pid in engine:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    r.recover("done", "error", "refused")


def kill_frontend(r):
    r.start(*NEVER)
    r.load()
    r.service.kill("frontend")
    r.end(1)
    r.endings("done", "cut")


def kill_frontend_restart(r):
    r.start()
    engine = r.service.child("engine")
    for _ in range(r.rng.randint(1, 2)):
        r.load()
        r.service.kill("frontend")
        r.more()
    expect(r.service.child("engine") == engine, "the engine did not survive its frontend")
    r.endings("done", "cut", "refused")
    expect(wait_until(lambda: r.service.metric("vllm:num_requests_running") == 0, 10), "orphaned requests go on")
    r.stop()


def kill_both(r):
    r.start(*RESTART)
    r.load()
    victims = ["engine", "frontend"]
    r.rng.shuffle(victims)
    pids = [r.service.child(role) for role in victims]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        r.pause(0.02)
    r.recover("done", "error", "cut", "refused")


def kill_reaper_then_supervisor(r):
    """The process that cleans up after a killed supervisor is replaced when it is killed itself."""
    r.start()
    r.load()
    names = {pid: open(f"/proc/{pid}/comm").read().strip() for pid in processes.descendants(r.service.process.pid)}
    children = [pid for pid in names if pid != r.service.process.pid and processes.stat(pid)[0] == r.service.process.pid
                and processes.program(pid) not in ("vllm-swift", "blas-engine")]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    expect(wait_until(lambda: "started another" in r.service.log(), 5), "the reaper was not replaced")
    r.kill_supervisor()
    r.endings("done", "cut")


def stop_hung_engine(r):
    """An engine that does not react has to be killed: the exit code says so."""
    r.start()
    r.load()
    os.kill(r.service.child("engine"), signal.SIGSTOP)
    r.pause(0.1)
    r.service.process.send_signal(signal.SIGTERM)
    r.pause(0.5)
    r.service.process.send_signal(signal.SIGTERM)
    r.end(5)
    r.endings("done", "error")


def pause_engine(r):
    r.start("--engine-hang-timeout", "0.5")
    r.load()
    engine = r.service.child("engine")
    os.kill(engine, signal.SIGSTOP)
    r.pause(0.8)
    os.kill(engine, signal.SIGCONT)
    r.more()
    expect(wait_until(lambda: r.service.ready("/health/ready"), 10), "not ready after SIGCONT")
    r.endings("done")
    r.stop()


# How often each is drawn.
SCENARIOS = {
    stop_signal: 4, stop_with_drain: 2, stop_twice: 3, stop_while_starting: 4, kill_supervisor: 5,
    kill_supervisor_while_starting: 4, kill_supervisor_while_stopping: 2, kill_engine: 4, kill_engine_restart: 5,
    kill_one_of_two_engines: 2, kill_engine_while_it_restarts: 3, kill_frontend: 3, kill_frontend_restart: 4, kill_both: 3,
    kill_reaper_then_supervisor: 1, stop_hung_engine: 1, pause_engine: 1,
}


def draw(rng):
    return rng.choices(list(SCENARIOS), SCENARIOS.values())[0]


def run_one(scenario, seed):
    """Runs a round that depends on its seed alone. Returns nothing or the reason of the failure, with the log."""
    r = Round(random.Random(seed))
    try:
        scenario(r)
    except (Failure, AssertionError, OSError) as error:
        log = r.service.log()[-5000:] if hasattr(r, "service") else ""
        return f"{type(error).__name__}: {error}\n{log}"
    finally:
        if hasattr(r, "service"):
            r.service.__exit__(None, None, None)
    return None


def run(count, seed, only=None, report=print):
    """`count` rounds. Returns {scenario name: [rounds, failures]} and the failures."""
    rng = random.Random(seed)
    table = collections.defaultdict(lambda: [0, 0])
    failures = []
    for number in range(count):
        scenario = draw(rng)
        while only and scenario.__name__ != only:
            scenario = draw(rng)
        round_seed = f"{seed}/{number}"
        begin = time.monotonic()
        problem = run_one(scenario, round_seed)
        table[scenario.__name__][0] += 1
        report(f"round {number + 1}/{count} {scenario.__name__}: {'FAILED' if problem else 'ok'} ({time.monotonic() - begin:.1f} s)")
        if problem:
            table[scenario.__name__][1] += 1
            failures.append((scenario.__name__, round_seed, problem))
            report(problem)
    return dict(table), failures
