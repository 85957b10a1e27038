"""The combinations of supervisor, frontend and engine, and how each is started."""

import dataclasses
import os
import pathlib
import typing

MODEL_NAME = "tiny"


@dataclasses.dataclass
class Own:
    """Where our programs are."""
    folder: pathlib.Path
    blas_engine: pathlib.Path

    @property
    def vllm_engine(self):
        return self.folder / "vllm-engine"

    @property
    def vllm_swift(self):
        return self.folder / "vllm-swift"

    def missing(self):
        return [path for path in (self.vllm_engine, self.vllm_swift, self.blas_engine) if not path.exists()]


@dataclasses.dataclass
class Row:
    supervisor: str
    frontend: str
    engine: str
    needs: list  # files of peers
    # (model, port, handshake port) -> command lines, the first one is the supervisor's; None: not there yet
    launch: typing.Optional[typing.Callable] = None
    environment: dict = dataclasses.field(default_factory=dict)
    start_limit: float = 60.0
    stop_limit: float = 10.0
    real_engine: bool = False

    @property
    def names(self):
        return [self.supervisor, self.frontend, self.engine]

    @property
    def engine_kind(self):
        """Engines of one kind give the same greedy answers."""
        return "vLLM" if self.real_engine else "BLAS"

    @property
    def title(self):
        return f"{self.supervisor} supervisor · {self.frontend} · {self.engine}"


def rows(own, peers):
    return [real_supervisor(own, peers), *our_supervisor(own, peers), external_engine(own, peers), *swift_serve(own, peers)]


def real_supervisor(own, peers):
    def launch(model, port, _):
        return [[peers.vllm, "serve", model, "--port", port, "--host", "127.0.0.1", "--served-model-name", MODEL_NAME,
                 "--dtype", "bfloat16", "--enforce-eager"]]
    return Row(
        "vLLM 0.32", "vllm-swift, descriptors", "vLLM 0.32 CPU", [peers.vllm], launch,
        {"VLLM_USE_RUST_FRONTEND": "1", "VLLM_RUST_FRONTEND_PATH": str(own.vllm_swift), "VLLM_CPU_KVCACHE_SPACE": "1",
         "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        start_limit=400, stop_limit=30, real_engine=True)


def our_supervisor(own, peers):
    def row(frontend, needs, *options, engine="BLAS", start_limit=60.0):
        def launch(model, port, _):
            return [[own.vllm_engine, model, "--port", port, "--served-model-name", MODEL_NAME, *options]]
        environment = {
            "VLLM_ENGINE_ENGINE_BINARY": str(own.blas_engine), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        return Row("ours", frontend, engine, needs, launch, environment, start_limit)

    for version, form in (("0.28.0", "addresses"), ("0.30.0", "addresses"), ("0.32.0", "descriptors"), ("0.33.0", "descriptors")):
        binary = peers.vllm_rs(version)
        yield row(f"vllm-rs {version[:4]}, {form}", [binary], "--frontend", "rust", "--frontend-binary", binary)
    yield row("vLLM 0.32 Python", [peers.python, peers.vllm], "--frontend", "python", "--python", peers.python, start_limit=400)
    swift = ["--frontend", "swift", "--frontend-binary", own.vllm_swift]
    yield row("vllm-swift, descriptors", [], *swift)
    yield row("vllm-swift, addresses", [], *swift, "--frontend-version", "0.30")
    for count in (2, 4):
        engines = ["--data-parallel-size", count]
        yield row("vllm-swift, descriptors", [], *swift, *engines, engine=f"BLAS ×{count}")
        yield row("vllm-swift, addresses", [], *swift, *engines, "--frontend-version", "0.30", engine=f"BLAS ×{count}")
        binary = peers.vllm_rs("0.33.0")
        yield row("vllm-rs 0.33, descriptors", [binary], "--frontend", "rust", "--frontend-binary", binary, *engines,
                  engine=f"BLAS ×{count}")
        yield row("vLLM 0.32 Python", [peers.python, peers.vllm], "--frontend", "python", "--python", peers.python, *engines,
                  engine=f"BLAS ×{count}", start_limit=400)
    yield row("vllm-swift ×2", [], *swift, "--api-server-count", 2)
    yield row("vLLM 0.32 Python ×2", [peers.python, peers.vllm], "--frontend", "python", "--python", peers.python,
              "--api-server-count", 2, "--data-parallel-size", 2, engine="BLAS ×2", start_limit=400)


def external_engine(own, peers):
    binary = peers.vllm_rs("0.33.0")

    def launch(model, port, handshake_port):
        return [
            [binary, "serve", model, "--port", port, "--served-model-name", MODEL_NAME,
             "--data-parallel-size-local", "0", "--handshake-port", handshake_port],
            [own.blas_engine, "--model", model, "--handshake-address", f"tcp://127.0.0.1:{handshake_port}"],
        ]
    return Row("vllm-rs serve 0.33", "(itself)", "BLAS", [binary], launch, {"HF_HUB_OFFLINE": "1"})


def swift_serve(own, peers):
    """Our frontend with the handshake in its own hands, and an engine that dials in."""
    def row(engine, needs, command, environment=None, **limits):
        def launch(model, port, handshake_port):
            return [
                [own.vllm_swift, "serve", model, "--port", port, "--served-model-name", MODEL_NAME,
                 "--data-parallel-size-local", "0", "--handshake-port", handshake_port],
                command(model, handshake_port),
            ]
        return Row("vllm-swift serve", "(itself)", engine, needs, launch, environment or {}, **limits)

    yield row("BLAS", [], lambda model, port: [
        own.blas_engine, "--model", model, "--handshake-address", f"tcp://127.0.0.1:{port}"])
    yield row("vLLM 0.32 CPU, headless", [peers.vllm], lambda model, port: [
        peers.vllm, "serve", model, "--headless", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", port,
        "--data-parallel-size", "1", "--dtype", "bfloat16", "--enforce-eager"],
        {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        start_limit=400, stop_limit=30, real_engine=True)


def environment(row, scratch, marker):
    base = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_")}
    return base | {
        "VLLM_SERVER_DEV_MODE": "1", "NO_COLOR": "1", "VLLM_INTEROP_MARKER": marker, "TMPDIR": str(scratch),
        "XDG_RUNTIME_DIR": str(scratch), "VLLM_RPC_BASE_PATH": str(scratch)} | row.environment
