"""A soak: traffic of every kind for as long as one likes, blows in between, and what must hold after every round.

* Every request ends exactly once: with the right answer, or, only while a blow lasts, with a clear error.
* No request and no block of the key-value cache is in use any more, and descriptors and memory are what they were.
* The service's counters say what the clients' own accounts say.
"""

import collections
import os
import random
import re
import signal
import subprocess
import threading
import time

from service import Failure, Service, command, expect, http_client, processes, wait_until
from traffic import CHAT, COMPLETIONS, UNCOUNTED, Traffic

FOREVER = "1000/1m"
ARGUMENTS = ["--served-model-name", "m", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--restart", "on-failure",
             "--restart-max", FOREVER, "--restart-frontend-max", FOREVER,
             # Small enough to be contended, so that blocks are evicted and requests pushed back.
             "--num-gpu-blocks-override", "1024"]
ROLES = ("supervisor", "frontend", "engine")
# What a client may meet that has been about while the blow lasted, beside what it is due.
EXCUSES = {"nothing": set(), "pause_engine": set(), "swap": set(), "kill_engine": {"error", "refused"}, "kill_frontend": {"cut"},
           "kill_both": {"error", "refused", "cut"}}
BLOWS = {"nothing": 2, "pause_engine": 1, "swap": 3, "kill_engine": 3, "kill_frontend": 2, "kill_both": 1}
SPARE_DESCRIPTORS = 2
MOST_TOKENS = 3000  # that a request of an uncounted kind asks for
# Left out of the rounds without a blow: what their clients count must be exactly what the service counts.
RUDE = UNCOUNTED | {"leave_stream"}


def due(kind):
    return {"bad": {"refused"}, "leave_stream": {"left"}}.get(kind, {"left"} if kind in UNCOUNTED else {"answered"})


class Soak:
    def __init__(self, seed, rate, round_seconds, report, arguments=()):
        self.rng, self.rate, self.round_seconds, self.report = random.Random(seed), rate, round_seconds, report
        self.arguments = arguments
        self.rounds = 0
        self.kept, self.memory = [], collections.defaultdict(list)
        self.descriptors = {}
        self.left_out = 0
        self.strikes = collections.Counter()

    def run(self, seconds):
        """Raises Failure at the first thing that does not hold."""
        with Service(*ARGUMENTS, *self.arguments, mock=False) as self.service:
            try:
                self.service.wait_ready()
                self.traffic = Traffic(self.service.port)
                self.traffic.learn()
                end = time.monotonic() + seconds
                names, weights = list(BLOWS), list(BLOWS.values())
                # First each of them once, so that a short soak has them all; the first one is the measure of the others.
                self.round("nothing")
                for blow in self.rng.sample(names[1:], len(names) - 1):
                    self.round(blow)
                while time.monotonic() + self.round_seconds < end:
                    self.round(self.rng.choices(names, weights)[0])
                self.check_memory()
                self.service.stop(deadline=20)
            except (Failure, AssertionError, OSError) as error:
                raise Failure(f"round {self.rounds + 1}: {error}\n--- log ---\n{self.service.log()[-6000:]}") from error

    def round(self, blow):
        before, frontend = self.counters(), self.service.child("frontend")
        window = [float("inf"), 0.0]
        trouble = []
        striker = threading.Thread(target=self.strike, args=(blow, self.rng.uniform(0.2, 0.6), window, trouble), daemon=True)
        striker.start()
        self.left_out += self.traffic.run(self.rate, self.round_seconds, self.rng, RUDE if blow == "nothing" else ())
        striker.join(120)
        expect(not striker.is_alive(), f"{blow} does not come to an end")
        if trouble:
            raise trouble[0]
        accounts = self.traffic.settle()
        self.kept += accounts
        self.strikes[blow] += 1
        self.check_endings(accounts, blow, window)
        self.check_rest()
        if self.service.child("frontend") == frontend:
            self.check_ledger(accounts, before, self.counters())
        self.rounds += 1
        memory = ", ".join(f"{role} {self.memory[role][-1][1] >> 20} MB {self.count_descriptors(role)} fds" for role in ROLES)
        endings = collections.Counter(account.ending for account in accounts)
        lasted = f" for {window[1] - window[0]:.1f} s" if blow != "nothing" else ""
        self.report(f"round {self.rounds}: {blow}{lasted}; {len(accounts)} requests, {dict(endings)}; {memory}")

    # ---- blows ----

    def strike(self, blow, moment, window, trouble):
        """`window` is when clients may have felt it."""
        try:
            if blow == "nothing":
                return
            time.sleep(moment * self.round_seconds)
            window[:] = [time.monotonic(), float("inf")]
            getattr(self, blow)()
            expect(wait_until(self.service.answers, 30, 0.05), f"no answer after {blow}")
            window[1] = time.monotonic()
            self.service.remember_processes()
        except (Failure, AssertionError, OSError, subprocess.SubprocessError) as error:
            trouble.append(Failure(f"{blow}: {error}"))

    def pause_engine(self):
        engine = self.service.child("engine")
        os.kill(engine, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(engine, signal.SIGCONT)

    def swap(self):
        old = self.service.child("frontend")
        result = command(self.service, "swap", "--frontend", "swift", timeout=90)
        expect(result.returncode == 0, f"swap exits with {result.returncode}: {result.stdout}{result.stderr}")
        expect(old not in processes.descendants(self.service.process.pid), "the old frontend is still there")

    def kill_engine(self):
        self.service.kill("engine")

    def kill_frontend(self):
        self.service.kill("frontend")

    def kill_both(self):
        victims = {}
        for role in ("engine", "frontend"):
            victims |= processes.descendants(self.service.child(role))
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        expect(wait_until(lambda: not processes.alive(victims), 5), "something survives SIGKILL")

    # ---- what must hold ----

    def check_endings(self, accounts, blow, window):
        wrong = []
        for account in accounts:
            felt = account.begin < window[1] and account.end > window[0]
            if account.ending not in due(account.kind) | (EXCUSES[blow] if felt else set()):
                wrong.append(f"{account}{' felt' if felt else ' did not feel'} {blow}")
        expect(not wrong, f"{len(wrong)} requests ended as they must not: " + "; ".join(wrong[:5]))

    def check_rest(self):
        """All that the round has used is free again."""
        def idle():
            counters = self.counters()
            return all(total(counters, name) == 0 for name in
                       ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"))
        if not wait_until(idle, 15, 0.1):
            used = {name: value for name, value in self.counters().items() if re.match("vllm:(num_requests|kv_cache_usage)", name)}
            raise Failure(f"not at rest: {used}")
        for role in ROLES:
            now = self.count_descriptors(role)
            limit = self.descriptors.setdefault(role, now) + SPARE_DESCRIPTORS
            if not wait_until(lambda: self.count_descriptors(role) <= limit, 15, 0.1):
                pid = self.pid(role)
                files = collections.Counter(re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{fd}")) for fd in os.listdir(f"/proc/{pid}/fd"))
                raise Failure(f"{role} has {self.count_descriptors(role)} descriptors instead of {self.descriptors[role]}: {files}")
            pid = self.pid(role)
            with open(f"/proc/{pid}/statm") as statm:
                self.memory[role].append((pid, int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")))

    def check_ledger(self, accounts, before, after):
        """The counters of one frontend over one round against its clients' accounts."""
        gained = collections.Counter(after)
        gained.subtract(before)
        unsure = [account for account in accounts if account.kind in UNCOUNTED]
        # A whole answer that became an error when the engine died may have had several sequences there.
        unsure += [account for account in accounts if account.kind != "bad" and account.ending == "refused" for _ in range(4)]
        sure = [account for account in accounts if account.sequences]
        reasons = [reason for account in sure for reason in account.reasons]

        def compare(name, least, most=None, **labels):
            found = total(gained, name, **labels)
            most = least if most is None else most
            text = f"{least}" if least == most else f"{least} to {most}"
            expect(least <= found <= most, f"the metric {name} {labels or ''} has grown by {found:.0f}, the clients count {text}")

        stops, lengths = sum(reason != "length" for reason in reasons), reasons.count("length")
        compare("vllm:request_success_total", stops, stops + len(unsure), finished_reason="stop")
        compare("vllm:request_success_total", lengths, lengths + len(unsure), finished_reason="length")
        sequences = sum(account.sequences for account in sure)
        compare("vllm:request_success_total", sequences, sequences + len(unsure))
        answered = sum(account.generated_tokens for account in sure)
        open_ended = len(unsure) + sum(account.ending != "answered" for account in sure)
        # The engine computes the prompt of each sequence.
        prompts = sum(account.prompt_tokens * account.sequences for account in sure)
        compare("vllm:prompt_tokens_total", prompts, float("inf") if unsure else prompts)
        compare("vllm:generation_tokens_total", answered, answered + open_ended * MOST_TOKENS)
        for path in (CHAT, COMPLETIONS):
            for first in "245":
                exact = sum(account.path == path and str(account.status)[0] == first for account in accounts)
                # Those that left may have been counted with any status, also the half requests.
                compare("http_requests_total", exact, exact + len(unsure) if path == COMPLETIONS else exact,
                        handler=path, status=f"{first}xx")

    def check_memory(self):
        """Nothing may grow without end: of each role, the last rounds against the first of the same kind of process."""
        for role in ROLES:
            sizes = [size for _, size in self.memory[role]]
            early, late = max(sizes[:max(3, len(sizes) // 4)]), min(sizes[-3:])
            expect(late <= early * 1.25 + (16 << 20), f"{role} has grown from {early >> 20} to {late >> 20} MB")

    # ---- observing ----

    def pid(self, role):
        return self.service.process.pid if role == "supervisor" else self.service.child(role)

    def count_descriptors(self, role):
        return len(os.listdir(f"/proc/{self.pid(role)}/fd"))

    def counters(self):
        """{metric with its labels: value}"""
        text = http_client.request(self.service.port, "GET", "/metrics", timeout=20).body.decode()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and line[0] != "#"}


def total(counters, name, **labels):
    """Sum over the label sets that have these."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(value for key, value in counters.items()
               if key.partition("{")[0] == name and all(label in key for label in wanted))
