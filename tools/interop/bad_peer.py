#!/usr/bin/env python3
"""Sends damaged engine messages to `vllm-swift serve` for some minutes, while another, healthy engine answers requests.

    tools/interop/bad_peer.py --swift .build/release/vllm-swift --engine Engine/build/blas-engine --model MODEL \\
        --minutes 10 --seed 1

Needs pyzmq and msgspec (both come with vLLM). Exits with 1 when the frontend dies, when a request to the healthy engine
fails or changes its answer, or when the log grows with the number of damaged messages.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import msgspec
import zmq

PROMPT = {"prompt": "def add(", "max_tokens": 12, "temperature": 0}
READY = {
    "max_model_len": 4096, "num_gpu_blocks": 100, "block_size": 16, "dp_stats_address": None, "dtype": "bfloat16",
    "vllm_version": "0.32.0", "world_size": 1, "data_parallel_size": 1, "kv_cache_size_tokens": None,
    "kv_cache_max_concurrency": None, "tensor_parallel_size": 1, "pipeline_parallel_size": 1,
    "decode_context_parallel_size": 1, "data_parallel_rank": 1, "max_num_seqs": 64, "max_num_batched_tokens": 2048,
    "instance_id": "bad", "supports_lora": False, "max_loras": 0}
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port, body, rank, timeout=30):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Content-Type": "application/json", "X-data-parallel-rank": str(rank)})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class BadEngine:
    """Rank 1: registers as it should and is damaged from then on."""

    def __init__(self, handshake, seed):
        self.random, self.counts, self.running = random.Random(seed), {}, []
        self.context = zmq.Context()
        self.handshake = self.dealer(b"\x01\x00", handshake)
        self.handshake.send(pack({"status": "HELLO", "local": False, "headless": True}))
        init = unpack(self.handshake.recv())
        self.input_address = init["addresses"]["inputs"][0]
        self.input = self.dealer(b"\x01\x00", self.input_address)
        self.output = self.context.socket(zmq.PUSH)
        self.output.sndhwm, self.output.linger = 0, 0
        self.output.connect(init["addresses"]["outputs"][0])
        self.handshake_address = handshake
        self.input.send(pack(READY))
        self.handshake.send(pack({"status": "READY", "local": False, "headless": True}))

    def dealer(self, identity, address):
        made = self.context.socket(zmq.DEALER)
        made.identity, made.linger, made.sndhwm = identity, 0, 0
        made.connect(address)
        return made

    def learn(self):
        """Ids of the requests that this engine was given."""
        while self.input.poll(0):
            frames = self.input.recv_multipart()
            if frames[0] == b"\x00":
                self.running.append(unpack(frames[1])[0])
        del self.running[:-50]

    def request_id(self):
        pick = self.random.random()
        if self.running and pick < 0.6:
            return self.random.choice(self.running)
        return self.random.choice(["", "nobody", "x" * 300, "cmpl-1-2", "\u00e9" * 9])

    def outputs(self):
        r = self.random
        ids = [r.choice([0, 5, 8191, 8192, 2**31 - 1, 2**31, 2**63, -1, -2**63, 2**64 - 1]) for _ in range(r.randrange(4))]
        one = [self.request_id(), ids, None, None, None, r.choice([None, None, 0, 1, 2, 3, 4, 9, -1]), r.choice([None, 5, "a"])]
        return [r.choice([1, 1, 1, 0, 7, -3, 2**40]), [one] * r.randrange(1, 4), None, time.monotonic()]

    def value(self, depth=0):
        r = self.random
        kind = r.randrange(9 if depth < 5 else 6)
        if kind < 6:
            return [None, r.random() < 0.5, r.randrange(-2**40, 2**60), r.random() * 1e300, "s" * r.randrange(40), b"b" * r.randrange(40)][kind]
        if kind == 6:
            return {f"k{i}": self.value(depth + 1) for i in range(r.randrange(5))}
        return [self.value(depth + 1) for _ in range(r.randrange(6))]

    def mutated(self, data):
        data, r = bytearray(data), self.random
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(data) or 1)
            kind = r.randrange(4)
            if kind == 0 and data:
                data[at] = r.randrange(256)
            elif kind == 1:
                del data[at:at + r.randrange(1, 9)]
            elif kind == 2:
                data[at:at] = bytes(r.randrange(256) for _ in range(r.randrange(1, 9)))
            elif data:
                del data[r.randrange(len(data)):]
        return bytes(data)

    def note(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1
        return name

    def strike(self):
        r = self.random
        name = self.note(r.choices(
            ["random bytes", "mutated", "wrong types", "odd ids", "after finish", "deep", "64 MB", "many frames", "input",
             "double identity", "strange identity", "handshake"], [20, 40, 20, 25, 10, 1, 0.02, 3, 3, 0.3, 0.3, 1])[0])
        if name == "random bytes":
            self.output.send(r.randbytes(r.randrange(200)))
        elif name == "mutated":
            self.output.send(self.mutated(pack(self.outputs())))
        elif name == "wrong types":
            message = self.outputs()
            message[r.randrange(len(message))] = self.value()
            self.output.send(pack(message))
        elif name == "odd ids":
            self.output.send(pack(self.outputs()))
        elif name == "after finish" and self.running:
            one = [r.choice(self.running), [5], None, None, None, 1]
            for _ in range(3):
                self.output.send(pack([1, [one], None, time.monotonic()]))
        elif name == "deep":
            self.output.send(b"\x91" * 10_000 + b"\xc0")
        elif name == "64 MB":
            self.output.send(b"\xdd\x04\x00\x00\x00" + bytes(64 << 20))
        elif name == "many frames":
            self.output.send_multipart([pack(self.outputs())] + [r.randbytes(20) for _ in range(r.randrange(1, 20))])
        elif name == "input":
            self.input.send_multipart([r.randbytes(r.randrange(60)) for _ in range(r.randrange(1, 4))])
        elif name == "double identity":
            other = self.dealer(b"\x01\x00", self.input_address)
            other.send(self.mutated(pack(READY)))
            other.close(100)
            self.input.close()
            self.input = self.dealer(b"\x01\x00", self.input_address)
            self.input.send(pack(READY))
        elif name == "strange identity":
            other = self.dealer(r.choice([b"\x07\x00", b"abc", b"\xff" * 200]), self.input_address)
            other.send(pack(READY))
            other.close(100)
        elif name == "handshake":
            other = self.dealer(r.choice([b"\x05\x00", b"zz9"]), self.handshake_address)
            other.send_multipart([r.randbytes(r.randrange(40)) for _ in range(r.randrange(1, 4))])
            other.close(100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--swift", "--engine", "--model"):
        parser.add_argument(name, required=True, type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    port, handshake = free_port(), free_port()
    log = pathlib.Path(tempfile.mkstemp(prefix="bad-peer-", suffix=".log")[1])
    with log.open("wb") as sink:
        swift = subprocess.Popen(
            [args.swift, "serve", args.model, "--port", str(port), "--data-parallel-size", "2", "--data-parallel-size-local",
             "0", "--handshake-port", str(handshake), "--disable-uvicorn-access-log"], stderr=sink, stdout=sink,
            env=os.environ | {"NO_COLOR": "1"})
        engine = subprocess.Popen(
            [args.engine, "--model", args.model, "--handshake-address", f"tcp://127.0.0.1:{handshake}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    healthy, wrong, stop = [0], [], threading.Event()
    try:
        bad = BadEngine(f"tcp://127.0.0.1:{handshake}", args.seed)
        end = time.monotonic() + 60
        wanted = None
        while time.monotonic() < end and wanted is None:
            try:
                status, body = post(port, PROMPT, 0)
                wanted = json.loads(body)["choices"][0]["text"] if status == 200 else None
            except OSError:
                pass
            time.sleep(0.1)
        assert wanted is not None, "the service did not start"

        def ask_healthy():
            while not stop.is_set():
                try:
                    status, body = post(port, PROMPT, 0)
                    if status != 200 or json.loads(body)["choices"][0]["text"] != wanted:
                        wrong.append((status, body[:200]))
                    healthy[0] += 1
                except Exception as error:  # noqa: BLE001
                    wrong.append(repr(error))
                time.sleep(0.02)

        def ask_bad():
            while not stop.is_set():
                try:
                    post(port, PROMPT | {"stream": True}, 1, timeout=0.5)
                except OSError:
                    pass

        threads = [threading.Thread(target=work, daemon=True) for work in (ask_healthy, ask_bad, ask_bad)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + args.minutes * 60
        while time.monotonic() < end and swift.poll() is None:
            bad.learn()
            for _ in range(20):
                bad.strike()
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join(5)
        alive = swift.poll() is None
        memory = next((line.split()[1] for line in pathlib.Path(f"/proc/{swift.pid}/status").read_text().splitlines()
                       if line.startswith("VmRSS")), "?") if alive else "?"
    finally:
        for child in (swift, engine):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        codes = [child.wait(20) for child in (swift, engine)]
    lines = log.read_text(errors="replace").splitlines()
    total = sum(bad.counts.values())
    print(f"seed {args.seed}: {total} damaged messages in {args.minutes} min: {bad.counts}")
    print(f"healthy requests: {healthy[0]}, wrong: {len(wrong)} {wrong[:3]}; frontend alive: {alive}, {memory} kB, "
          f"exit codes {codes}, {len(lines)} log lines ({log})")
    good = alive and not wrong and healthy[0] > 0 and codes[0] == 0 and len(lines) < 200 + healthy[0]
    return 0 if good else 1


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sys.exit(main())
