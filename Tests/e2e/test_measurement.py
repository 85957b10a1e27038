"""`vllm-engine ab` and `bench`: real services under a small load. What the clocks say is not judged here, only that the
result has its form, that the answers are equal, and that nothing is left."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import uuid

import pytest

import processes
from server import BINARY, DEFAULT_MODEL, wait_until
from test_tls import Authority

DEADLINE = 240
# A closed loop cannot be late, and no block is dropped however busy the machine is.
SMALL = ["--max-concurrency", "4", "--num-prompts", "8", "--random-input-len", "16", "--random-output-len", "8", "--noise-limit", "1"]
SMALL_AB = ["ab", "--frontends", "swift,swift", *SMALL, "--num-warmups", "2", "--rounds", "2", "--idle-gap-ms", "0", "--equivalence", "4"]
# What `vllm bench serve --save-result` of vLLM 0.32 writes, without what --save-detailed adds.
STATISTICS = {f"{kind}_{family}_ms" for family in ("ttft", "tpot", "itl") for kind in ("mean", "median", "std", "p99")}
RESULT_KEYS = STATISTICS | {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness",
    "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput",
    "request_goodput", "output_throughput", "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
}
DETAIL_KEYS = {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "generated_texts", "errors"}


class Run:
    """One measuring command with temporary files and a marker of its own."""

    def __init__(self, *arguments):
        self.marker = f"e2e-{uuid.uuid4().hex}"
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
        variables = {"VLLM_E2E_MARKER": self.marker, "TMPDIR": str(self.scratch), "XDG_RUNTIME_DIR": str(self.scratch),
                     "VLLM_RPC_BASE_PATH": str(self.scratch), "NO_COLOR": "1"}
        self.process = subprocess.Popen([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | variables)

    def finish(self):
        """(exit status, standard output, standard error)"""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def running(self):
        return processes.alive(processes.marked(self.marker))

    def files(self):
        return [os.path.join(folder, name) for folder, folders, files in os.walk(self.scratch) for name in folders + files]

    def assert_gone(self, deadline=20):
        wait_until(lambda: not self.running(), deadline)
        assert not self.running(), "still running"

    def end(self):
        for pid in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=10)
        shutil.rmtree(self.scratch, ignore_errors=True)


@contextlib.contextmanager
def started(*arguments):
    run = Run(*arguments)
    try:
        yield run
    finally:
        run.end()


def measure(*arguments):
    """Runs a command to its end; nothing of it may be left at the moment it exits."""
    with started(*arguments) as run:
        result = run.finish()
        assert not run.running() and not run.files(), result
        return result


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A run of ab with every kind of result."""
    folder = tmp_path_factory.mktemp("ab")
    result = measure(*SMALL_AB, "--aa-rounds", "2", "--json", folder / "run.json", "--html", folder / "page.html",
                     "--records", folder / "run.jsonl", "--fail-if", "failed_requests > 0%", "--fail-if", "unequal_answers > 0")
    return folder, *result


def test_ab_compares_a_frontend_with_itself(comparison):
    folder, status, table, errors = comparison
    assert status == 0, errors
    assert "swift-2" in table and "output equal: 4/4 texts" in table and "\x1b" not in table
    document = json.loads((folder / "run.json").read_text())
    assert document["schema"] == "vllm-engine.measurement/1" and document["command"] == "ab"
    assert [arm["name"] for arm in document["arms"]] == ["swift", "swift-2"]
    assert document["void"] == [] and document["noise"]["dropped_blocks"] == []

    [load] = document["loads"]
    assert (load["concurrency"], load["rounds"], load["noise_floor_rounds"]) == (4, 2, 2)
    for arm in load["arms"]:
        assert arm["failures"] == {}
        assert (arm["requests"], arm["output_tokens"]) == (2 * 8, 2 * 8 * 8)
    # The same prompts for both.
    assert load["arms"][0]["input_tokens"] == load["arms"][1]["input_tokens"] > 0
    metrics = {metric["name"]: metric for metric in load["metrics"]}
    for name in ("p50_ttft", "p99_itl", "p50_e2el", "output_throughput", "frontend_cpu_per_token", "rss", "p50_ttft_added", "p50_token_path"):
        metric = metrics[name]
        assert set(metric["values"]) == {"swift", "swift-2"} and None not in metric["values"].values(), name
        [difference] = metric["comparisons"]
        assert (difference["candidate"], difference["baseline"]) == ("swift", "swift-2")
        assert difference["low"] <= difference["difference"] <= difference["high"], name
        assert len(difference["blocks"]) == 2 and difference["verdict"], name
    # Twice the same frontend says the same to its engine, whose outputs are at least a token each.
    [traffic] = metrics["zmq_bytes_per_token"]["comparisons"]
    assert metrics["zmq_bytes_per_token"]["values"]["swift"] > metrics["zmq_bytes_per_request"]["values"]["swift"] / 8 > 8
    assert abs(traffic["difference"]) < 0.1
    assert metrics["failed_requests"]["values"] == {"swift": 0, "swift-2": 0}

    [answers] = document["equivalence"]
    assert answers["answers_equal"] and (answers["unequal_answers"], answers["unanswered"]) == (0, 0)
    assert all(count["compared"] == count["equal"] == 4 for aspect, count in answers["counts"].items() if aspect != "chunkings")
    # Tool calls, several choices and the like, which the workload has not, and which nobody refuses.
    assert answers["unequal_features"] == 0 and len(answers["features"]) > 30
    assert {feature["refused_by"] for feature in answers["features"]} == {None}


def test_ab_writes_a_page_and_records(comparison):
    folder, status, table, errors = comparison
    assert status == 0, errors
    page = (folder / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>") and "swift-2" in page
    with open(folder / "run.jsonl") as file:
        header = json.loads(next(file))
        lines = [json.loads(line) for line in file]
    assert header["schema"] == "vllm-engine.records/1"
    # Two rounds of the comparison and two of the noise floor, two blocks each.
    assert len(header["blocks"]) == 8 and header["requests"] == 8 * 8 and header["equivalence"] == [4 + len(header["description"]["features"])] * 2
    assert len(lines) == header["requests"] + sum(header["equivalence"])
    # The engine has told the times of its own steps, token by token.
    assert all(sum(line["engine_step_tokens"]) == 8 for line in lines[: header["requests"]])

    # The same numbers come out of the records again.
    status, again, errors = measure("report", folder / "run.jsonl", "--json", "-")
    assert status == 0, errors
    assert json.loads(again) == json.loads((folder / "run.json").read_text())


def test_a_rule_that_holds_fails_the_run(tmp_path):
    rule = "p50_e2el > 0ms"
    status, table, errors = measure(*SMALL_AB, "--rounds", "1", "--aa-rounds", "0", "--json", tmp_path / "run.json", "--fail-if", rule)
    assert status == 1 and f"--fail-if {rule}: swift has " in errors
    # The results are there all the same.
    assert "e2e p50" in table and json.loads((tmp_path / "run.json").read_text())["loads"]


def test_a_rule_without_a_measurement_fails_the_run():
    # Answers that are not compared cannot be called equal.
    status, _, errors = measure(*SMALL_AB, "--equivalence", "0", "--rounds", "1", "--aa-rounds", "0", "--fail-if", "unequal_answers > 0")
    assert status == 1 and "answers were not compared" in errors


def test_a_run_without_a_result_fails(comparison, tmp_path):
    records = (comparison[0] / "run.jsonl").read_text()
    header, rest = records.split("\n", 1)
    header = json.loads(header)
    for block in header["blocks"]:
        block["dropped"] = "a busy machine"
    (tmp_path / "run.jsonl").write_text(json.dumps(header) + "\n" + rest)
    status, table, errors = measure("report", tmp_path / "run.jsonl")
    assert status == 1 and "nothing was measured" in errors and "8 blocks dropped" in table


def test_bench_of_an_own_service(tmp_path):
    status, table, errors = measure("bench", *SMALL, "--result-filename", tmp_path / "result.json", "--json", tmp_path / "run.json")
    assert status == 0, errors
    assert "ttft" in table
    result = json.loads((tmp_path / "result.json").read_text())
    assert RESULT_KEYS <= set(result), RESULT_KEYS - set(result)
    assert not DETAIL_KEYS & set(result)
    assert (result["completed"], result["failed"], result["num_prompts"], result["max_concurrency"]) == (8, 0, 8, 4)
    assert result["total_output_tokens"] == 64 and result["request_rate"] == "inf" and result["backend"] == "openai-chat"
    assert all(result[name] >= 0 for name in STATISTICS)
    assert json.loads((tmp_path / "run.json").read_text())["command"] == "bench"


def test_bench_of_a_running_server(server):
    status, out, errors = measure("bench", "--base-url", f"http://127.0.0.1:{server.port}", *SMALL, "--ignore-eos",
                                  "--result-filename", "-", "--save-detailed")
    assert status == 0, errors
    result = json.loads(out)
    assert RESULT_KEYS | DETAIL_KEYS <= set(result), (RESULT_KEYS | DETAIL_KEYS) - set(result)
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (8, 0, 64)
    assert result["output_lens"] == [8] * 8 and result["errors"] == [""] * 8
    assert sum(result["input_lens"]) == result["total_input_tokens"]
    assert server.get("/health").status == 200


# The keys of a file that `vllm bench serve` of vLLM 0.32 wrote with the options of the next test, in their order.
VLLM_KEYS = """date endpoint_type backend label model_id tokenizer_id num_prompts a version request_rate burstiness max_concurrency
duration completed failed total_input_tokens total_output_tokens request_throughput request_goodput output_throughput
total_token_throughput input_lens output_lens ttfts itls latencies start_times queue_times generated_texts errors
max_output_tokens_per_s max_concurrent_requests rtfx""".split()
VLLM_KEYS += [f"{kind}_{family}_ms" for family in ("ttft", "tpot", "itl", "e2el")
              for kind in ("mean", "median", "std", "p50", "p90", "p99")]


def test_bench_writes_the_file_that_vllm_writes(server, tmp_path):
    status, table, errors = measure(
        "bench", "--base-url", f"http://127.0.0.1:{server.port}/v1", "--random-input-len", "32", "--random-output-len", "16", "--num-prompts",
        "8", "--request-rate", "20", "--max-concurrency", "8", "--save-result", "--save-detailed", "--result-dir", tmp_path, "--metadata",
        "a=b", "version=3", "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99", "--goodput", "ttft:60000",
        "e2el:60000", "--ignore-eos", "--noise-limit", "1", "--lateness-limit-ms", "60000")
    assert status == 0, errors
    [file] = tmp_path.iterdir()
    # The model's name is the server's own.
    name = json.loads(server.get("/v1/models").body)["data"][0]["id"]
    assert file.name.startswith(f"openai-chat-20.0qps-concurrency8-{name.split('/')[-1]}-") and file.suffix == ".json"
    result = json.loads(file.read_text())
    assert list(result) == VLLM_KEYS
    assert (result["model_id"], result["a"], result["version"], result["request_rate"], result["max_concurrency"]) == (name, "b", "3", 20, 8)
    assert result["completed"] == 8 and result["request_goodput"] == result["request_throughput"]
    # Lists are seconds, statistics milliseconds.
    assert abs(sum(result["ttfts"]) / 8 * 1000 - result["mean_ttft_ms"]) < 1e-6
    assert all(ttft + sum(itls) <= latency + 1e-6 for ttft, itls, latency in zip(result["ttfts"], result["itls"], result["latencies"]))


def test_bench_takes_the_options_of_vllm(server):
    arguments = ["--backend", "vllm", "--host", "127.0.0.1", "--port", server.port, "--endpoint", "/v1/completions", "--dataset-name", "random",
                 "--input-len", "16", "--output-len", "8", "--random-range-ratio", "0.5", "--num-prompts", "12", "--max-concurrency", "2",
                 "--top-p", "0.9", "--top-k", "5", "--repetition-penalty", "1.1", "--logprobs", "1", "--header", "x-a=1", "x-b=2",
                 "--disable-tqdm", "--seed", "1", "--noise-limit", "1", "--lateness-limit-ms", "60000", "--save-detailed",
                 "--percentile-metrics", "e2el,client_queue_time,e2el_including_client_queue", "--result-filename", "-"]
    status, out, errors = measure("bench", *arguments, "--request-rate", "200")
    assert status == 0, errors
    result = json.loads(out)
    assert (result["backend"], result["completed"]) == ("vllm", 12), result["errors"]
    # Drawn between half and one and a half of what was asked for; with random prompts, vLLM lets none end early.
    assert all(4 <= length <= 12 for length in result["output_lens"]) and len(set(result["output_lens"])) > 1
    # Twelve requests in a moment, two at a time: most have to wait for their turn.
    assert result["median_client_queue_time_ms"] > 0
    whole = result["mean_e2el_ms"] + result["mean_client_queue_time_ms"]
    assert abs(result["mean_e2el_including_client_queue_ms"] - whole) < 1e-3
    assert "mean_ttft_ms" not in result

    status, out, errors = measure("bench", *arguments, "--ramp-up-strategy", "exponential", "--ramp-up-start-rps", "50", "--ramp-up-end-rps", "200")
    assert status == 0, errors
    result = json.loads(out)
    assert (result["request_rate"], result["ramp_up_strategy"], result["ramp_up_start_rps"], result["ramp_up_end_rps"]) == ("inf", "exponential", 50, 200)
    assert "mean_e2el_including_client_queue_ms" not in result


def test_results_can_be_collected_in_one_file(server, tmp_path):
    # As vLLM leaves it: without a line break at its end.
    file = tmp_path / "results.json"
    file.write_text('{"completed": 1}')
    for count in (2, 3):
        status, table, errors = measure("bench", "--port", server.port, *SMALL, "--num-prompts", count, "--append-result", "--result-filename", file)
        assert status == 0, errors
    assert [json.loads(line)["completed"] for line in file.read_text().splitlines()] == [1, 2, 3]


def test_bench_waits_for_a_server_that_starts(start_server):
    nobody = processes.free_port()
    status, out, errors = measure("bench", "--port", nobody, *SMALL, "--ready-check-timeout-sec", "0.01")
    assert status == 1 and "the server was not ready in time: " in errors and out == ""
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), wait=False)
    status, out, errors = measure("bench", "--port", server.port, *SMALL, "--ready-check-timeout-sec", DEADLINE, "--result-filename", "-")
    assert status == 0, errors
    assert json.loads(out)["completed"] == 8
    server.remember_processes()


def test_data_sets_keep_their_prompts(server, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": "word " * (5 * (number + 1)), "output_tokens": 4}) + "\n" for number in range(6)))
    common = ["bench", "--port", server.port, "--backend", "openai", "--max-concurrency", "1", "--save-detailed", "--result-filename", "-",
              "--noise-limit", "1", "--lateness-limit-ms", "60000"]
    status, out, errors = measure(*common, "--dataset-name", "custom", "--dataset-path", prompts, "--skip-chat-template", "--num-prompts", "50",
                                  "--no-oversample", "--disable-shuffle")
    assert status == 0, errors
    lengths = json.loads(out)["input_lens"]
    assert len(lengths) == 6 and lengths == sorted(set(lengths))

    # A trace in seconds, whose prompts share beginnings.
    prompts.write_text("".join(json.dumps({"timestamp": 5 + number / 100, "input_length": 40 + number, "output_length": 3,
                                           "hash_ids": [number % 2, 7, 8]}) + "\n" for number in range(4)))
    status, out, errors = measure(*common, "--dataset-name", "timed_trace", "--dataset-path", prompts, "--timed-trace-sec-multiplier", "1",
                                  "--timed-trace-chunk-hash-size", "16")
    assert status == 0, errors
    result = json.loads(out)
    assert result["output_lens"] == [3] * 4 and all(abs(length - 40 - number) <= 6 for number, length in enumerate(result["input_lens"]))

    # Two for each of three beginnings; no request is left for a third.
    status, out, errors = measure(*common, "--dataset-name", "prefix_repetition", "--num-prompts", "8", "--prefix-repetition-num-prefixes", "3",
                                  "--prefix-repetition-prefix-len", "64", "--prefix-repetition-suffix-len", "16", "--prefix-repetition-output-len", "4")
    assert status == 0, errors
    result = json.loads(out)
    assert (result["completed"], result["output_lens"]) == (6, [4] * 6)
    assert all(70 <= length <= 90 for length in result["input_lens"]), result["input_lens"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program")
def test_bench_of_an_encrypted_server(start_server, tmp_path):
    certificate, key = Authority(tmp_path).issue("server")
    server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key),
                          wait=False)
    assert wait_until(lambda: "Try it" in server.log(), DEADLINE)
    server.remember_processes()
    for host, *trust in (("localhost", "--cacert", tmp_path / "ca.pem"), ("127.0.0.1", "--cacert", tmp_path / "ca.pem"),
                         ("127.0.0.1", "--insecure")):
        status, out, errors = measure("bench", "--base-url", f"https://{host}:{server.port}", *SMALL, *trust, "--result-filename", "-")
        assert status == 0, errors
        assert json.loads(out)["completed"] == 8
    status, out, errors = measure("bench", "--base-url", f"https://localhost:{server.port}", *SMALL)
    assert status == 1 and "CERTIFICATE_VERIFY_FAILED" in errors and out == "", errors


def test_bench_counts_what_fails(server):
    status, out, errors = measure("bench", "--base-url", f"http://127.0.0.1:{server.port}", *SMALL, "--served-model-name", "nobody",
                                  "--result-filename", "-", "--save-detailed")
    assert status == 0, errors
    result = json.loads(out)
    assert (result["completed"], result["failed"]) == (0, 8)
    assert all("nobody" in error for error in result["errors"]), result["errors"]


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(blow):
    # More load than ever gets done; the engine's stamps say when it has begun.
    with started(*SMALL_AB, "--num-prompts", "5000", "--rounds", "1000", "--random-output-len", "64") as run:
        def answered():
            assert run.process.poll() is None, run.finish()
            return any(path.endswith(".stamps") and os.path.getsize(path) for path in run.files() if os.path.exists(path))
        assert wait_until(answered, DEADLINE)
        programs = {processes.program(pid) for pid in run.running()}
        assert {"vllm-engine", "vllm-swift", "blas-engine"} <= programs
        os.kill(run.process.pid, blow)
        status, out, errors = run.finish()
        assert status == 128 + blow and f"stopped by {blow.name}" in errors, errors
        assert out == "" and not run.running() and not run.files()


def test_a_signal_during_the_start_leaves_nothing():
    with started(*SMALL_AB) as run:
        # The first service has been started, the second has not.
        assert wait_until(lambda: any(path.endswith(".log") for path in run.files()) or run.process.poll() is not None, DEADLINE)
        os.kill(run.process.pid, signal.SIGINT)
        status, out, errors = run.finish()
        assert status == 128 + signal.SIGINT, errors
        assert out == "" and not run.running() and not run.files()


def test_kill_leaves_no_process():
    with started(*SMALL_AB, "--num-prompts", "5000", "--rounds", "1000") as run:
        assert wait_until(lambda: any(processes.program(pid) == "blas-engine" for pid in run.running()), DEADLINE)
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait(10)
        run.assert_gone()


@pytest.mark.parametrize("arguments, message", [
    (["ab", "--frontends", "swift"], "--frontends needs two or three names"),
    (["ab", "--frontends", "swift,nothing"], "nothing was not found"),
    (["ab", "--frontends", "swift,/no/such/file"], "/no/such/file is not an executable file"),
    (["ab", "--frontends", "swift,swift", "--frontend-binary", "rust=/x"], "--frontend-binary rust: no such frontend"),
    (["ab", "--rounds", "0"], "--rounds must be from 1 to 1000"),
    (["ab", "--workload", "nothing"], "--workload nothing: known are chat, "),
    (["ab", "--request-rate", "0"], "The value '0' is invalid for '--request-rate"),
    (["ab", "--max-concurrency", "many"], "The value 'many' is invalid for '--max-concurrency"),
    (["ab", "--noise-limit", "2"], "--noise-limit must be from 0 to 1"),
    (["ab", "--engine", "replay"], "--engine replay and --replay belong together"),
    (["ab", "--fail-if", "p50_tfft > +5%"], "--fail-if: unknown metric 'p50_tfft'; known are: p50_ttft, "),
    (["ab", "--fail-if", "p50_ttft = 5"], "--fail-if: the operator is not > or <"),
    (["ab", "--numprompts", "3"], "Did you mean '--num-prompts'?"),
    (["ab", "--frontends", "swift,swift", "--model", "/no/such"], "model folder /no/such does not exist"),
    (["ab", "--frontends", "swift,swift", "--", "--mock-itl-ms", "often"], "--mock-itl-ms"),
    (["ab", "--engine", "replay", "--replay", "/no/such"], "--replay: cannot read /no/such"),
    (["ab", "--port", "1"], "--port and --pid belong to --live"),
    (["bench", "--base-url", "http://x", "--insecure"], "--insecure and --cacert need an https:// URL"),
    (["bench", "--base-url", "https://x", "--cacert", "/no/such"], "--cacert: /no/such cannot be used"),
    (["bench", "--metadata", "a"], "--metadata is about the result file"),
    (["bench", "--save-result", "--metadata", "a"], "--metadata a: write NAME=VALUE"),
    (["bench", "--save-result", "--percentile-metrics", "ttft,x"], "--percentile-metrics x: known are ttft, tpot, itl, e2el"),
    (["bench", "--base-url", "nonsense"], "nonsense is not an http:// or https:// URL"),
    (["bench", "--base-url", "http://x", "--port", "1"], "--base-url takes the place of --host and --port"),
    (["bench", "--backend", "openai-embeddings"], "'openai-embeddings' is invalid for '--backend"),
    (["bench", "--backend", "openai-chat", "--endpoint", "/v1/completions"], "--endpoint /v1/completions is not one for openai-chat"),
    (["bench", "--endpoint", "/v1/responses"], "--endpoint /v1/responses: not a path that ends with /completions"),
    (["bench", "--dataset-name", "sonnet"], "'sonnet' is invalid for '--dataset-name"),
    (["bench", "--plot-timeline"], "Unknown option '--plot-timeline'"),
    (["bench", "--append-result", "--result-filename", "-"], "--append-result needs a file"),
    (["bench", "--ready-check-timeout-sec", "5"], "--ready-check-timeout-sec needs --base-url, --host or --port"),
    (["bench", "--dataset-name", "prefix_repetition", "--num-prompts", "5"], "5 requests are too few for --prefix-repetition-num-prefixes 10"),
    (["bench", "--timed-trace-sec-multiplier", "0"], "--timed-trace-sec-multiplier must be above 0"),
    (["ab", "--equal-within", "60"], "--equal-within must be from 0 to 50"),
    (["bench", "--output-len", "3", "--random-output-len", "3"], "--output-len takes the place of"),
    (["bench", "--random-range-ratio", "1"], "--random-range-ratio must be from 0 to below 1"),
    (["bench", "--base-url", "http://x", "--system-calls"], "--system-calls needs a service that is started"),
    (["bench", "--num-runs", "0"], "--num-runs must be from 1 to 1000"),
    (["bench", "--dataset-name", "custom"], "--dataset-path belongs to"),
    (["bench", "--dataset-name", "custom", "--dataset-path", "/no/such"], "cannot read /no/such"),
    (["bench", "--json", "-", "--records", "-"], "--json and --records cannot both be -"),
], ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "")
def test_wrong_options_are_explained(arguments, message):
    status, out, errors = measure(*arguments)
    # A service that refuses its options has not started.
    assert status == (4 if "--mock-itl-ms" in arguments else 2), errors
    assert message in errors and out == ""
