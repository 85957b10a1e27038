"""What the control routes do to the real engine: caches, pauses, sleep, versions of weights, calls of workers."""

import concurrent.futures
import json
import pathlib

import pytest

from server import wait_until

DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}
PROMPT = {"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module", params=[1, 2], ids=["one engine", "two engines"])
def service(request):
    from server import Server
    server = Server("--data-parallel-size", str(request.param), environment=DEVELOPMENT)
    server.engines = request.param
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def text(service, rank=0, **fields):
    answer = service.post("/v1/completions", PROMPT | fields, headers={"X-data-parallel-rank": str(rank)})
    assert answer.status == 200, answer.body
    return answer.json()["choices"][0]["text"]


def call(service, path, body=b"", status=200):
    answer = service.post(path, body)
    assert answer.status == status, (path, answer.status, answer.body)
    return answer.json() if answer.body else None


def hits(service):
    return service.metric("vllm:prefix_cache_hits_total")


def engine_pids(service):
    import processes
    return [pid for pid in processes.descendants(service.process.pid) if processes.program(pid).startswith("blas-engine")]


def resident(pid, kind="VmRSS"):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind)) * 1024


def test_a_reset_empties_the_prefix_cache_of_every_engine(service):
    long = {"prompt": "def add(a, b):\n" * 20, "max_tokens": 1}
    for rank in range(service.engines):
        text(service, rank, **long)
        before = hits(service)
        text(service, rank, **long)
        assert wait_until(lambda: hits(service) > before, 5), "the cache does not work"
    assert call(service, "/reset_prefix_cache") == {"success": True}
    before = hits(service)
    for rank in range(service.engines):
        text(service, rank, **long)
        text(service, rank)  # its last message brings the counters of the one before
    assert hits(service) == before
    for path in ("/reset_mm_cache", "/reset_encoder_cache"):
        assert call(service, path) is None


@pytest.mark.parametrize("mode", ["keep", "wait", "abort"])
def test_pauses(service, mode):
    expected = text(service)
    streams = [service.stream("/v1/completions", PROMPT | {"max_tokens": 400, "ignore_eos": True}) for _ in range(4)]
    for stream in streams:
        next(iter(stream))
    call(service, f"/pause?mode={mode}")
    assert service.get("/is_paused").json() == {"is_paused": True}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        late = pool.submit(service.post, "/v1/completions", PROMPT)
        call(service, "/resume")
        answer = late.result()
    assert service.get("/is_paused").json() == {"is_paused": False}
    # Our engine turns requests away while it is paused, unless it keeps what it has.
    assert answer.status == 200 or (answer.status == 503 and mode != "keep"), answer.body
    if answer.status == 200:
        assert answer.json()["choices"][0]["text"] == expected
    for stream in streams:
        finishes = [choice["finish_reason"] for chunk in stream.chunks() for choice in chunk["choices"] if choice["finish_reason"]]
        # A stream may have been through before the pause began.
        assert finishes in ([["length"], ["abort"]] if mode == "abort" else [["length"]])
    assert text(service) == expected


@pytest.mark.parametrize("level", [1, 2])
def test_a_sleeping_engine_gives_its_memory_back_and_knows_everything_when_it_wakes(service, level):
    expected = [text(service, rank) for rank in range(service.engines)]
    pids = engine_pids(service)
    assert len(pids) == service.engines
    awake = [resident(pid) for pid in pids]
    assert call(service, f"/sleep?level={level}") == {"status": "sleeping", "level": level}
    assert service.get("/is_sleeping").json() == {"is_sleeping": True}
    asleep = [resident(pid) for pid in pids]
    weights = (pathlib.Path(__file__).resolve().parents[2] / "Engine/models/default/model.safetensors").stat().st_size
    for before, after in zip(awake, asleep, strict=True):
        assert before - after > weights / 2, f"{before >> 10} kB awake, {after >> 10} kB asleep, weights of {weights >> 10} kB"
    assert service.get("/health").status == 200
    # Piece by piece: with its weights alone it sleeps on.
    assert call(service, "/wake_up?tags=weights") == {"status": "sleeping", "tags": ["weights"]}
    assert service.get("/is_sleeping").json() == {"is_sleeping": True}
    assert call(service, "/wake_up?tags=kv_cache") == {"status": "awake", "tags": ["kv_cache"]}
    assert service.get("/is_sleeping").json() == {"is_sleeping": False}
    assert [text(service, rank) for rank in range(service.engines)] == expected


def test_level_0_only_stops_the_scheduler(service):
    expected = text(service)
    call(service, "/sleep?level=0")
    assert service.get("/is_sleeping").json() == {"is_sleeping": True}
    assert call(service, "/wake_up?tags=scheduling") == {"status": "awake", "tags": ["scheduling"]}
    assert text(service) == expected
    call(service, "/sleep?level=7", status=400)


def test_the_version_of_the_weights_is_one_for_all_engines(service):
    assert service.get("/weight_info").json() == {"weight_version": "default"}
    assert call(service, "/update_weight_version", {"new_version": "w2"}) == {"success": True, "new_version": "w2"}
    assert service.get("/weight_info").json() == {"weight_version": "w2"}
    call(service, "/update_weight_version", {"new_version": "default"})


def test_calls_of_workers(service):
    results = call(service, "/collective_rpc", {"method": "check_health"})
    assert results == {"results": [None] * service.engines}
    failure = call(service, "/collective_rpc", {"method": "no_such_thing"}, status=500)
    assert "no_such_thing" in failure["error"]["message"]
    call(service, "/collective_rpc", {}, status=400)
    assert service.get("/get_world_size").json() == {"world_size": 1}


def test_what_the_engine_cannot_do_fails_with_its_words(service):
    message = call(service, "/release_kv_cache_memory", status=500)["error"]["message"]
    assert "not supported by this engine" in message
    assert service.post("/start_profile", b"").status == 404  # no profiler was configured
    assert text(service)


def test_a_request_is_aborted_by_its_id(service):
    stream = service.stream("/v1/completions", PROMPT | {"max_tokens": 1000, "ignore_eos": True})
    first = json.loads(next(iter(stream)))
    assert call(service, "/abort_requests", {"request_ids": [first["id"]]}) == {"status": "aborted", "aborted": 1}
    last = stream.chunks()[-1]
    # It may have been through before.
    assert "abort" in last.get("error", {}).get("message", "") or last["choices"][0]["finish_reason"] in ("abort", "length"), last
    assert wait_until(lambda: service.metric("vllm:num_requests_running") == 0, 5)
