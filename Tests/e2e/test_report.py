"""`vllm-engine report`: the page of a run whose records are written here, looked at with a real browser."""

import html.parser
import json
import os
import random
import re
import shutil
import struct
import subprocess
import zlib

import pytest

from server import BINARY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIGURES = {"differences-1-l0", "ecdf-ttft-added-l0", "ecdf-token-path-l0", "heat-l0", "chunks-l0", "cost", "tail"}
ATTACK = "</title><script>document.title='owned'</script>\"'&"


def usage(cpu):
    return {
        "cpu": cpu, "user": cpu // 2, "system": cpu - cpu // 2, "voluntarySwitches": 90, "involuntarySwitches": 3,
        "systemCalls": 100, "residentBytes": 50_000_000, "peakResidentBytes": 51_000_000, "threads": 4,
        "processes": 1,
    }


def write_records(path, rounds=4, requests=12, tokens=20):
    """As docs/measurement.md describes the file. The second arm takes twice as long for its own part."""
    rng = random.Random(7)
    ms = 1_000_000
    rates = [20, 40, 80]
    blocks, lines, clock = [], [], 1000 * ms
    for load, rate in enumerate(rates):
        for purpose, count in (("noise_floor", 2), ("comparison", rounds)):
            for number in range(count):
                for column in (0, 1):
                    arm = column if purpose == "comparison" else 0
                    own, start, end = (1 + arm) * (1 + load), clock, clock
                    for index in range(requests):
                        intended = start + index * 1000 * ms // rate
                        received = int(rng.uniform(0.3, 0.5) * own * ms)
                        gaps = [int(rng.uniform(9.5, 10.5) * ms) for _ in range(tokens - 1)]
                        steps = [5 * ms] + gaps
                        arrivals, moment = [], received
                        for step in steps:
                            moment += step
                            arrivals.append(moment + int(rng.uniform(0.1, 0.2) * own * ms))
                        # The second arm sends two tokens in one chunk once.
                        chunk_tokens = [1] * tokens
                        if arm == 1:
                            del arrivals[3]
                            chunk_tokens[3:5] = [2]
                        chunks = [b - a for a, b in zip([0] + arrivals, arrivals)]
                        lines.append({
                            "arm": arm, "block": len(blocks), "index": index, "item": index, "seed": "1",
                            "intended": intended - 1000 * ms, "sent": 1000, "first_byte": arrivals[0],
                            "first_token": arrivals[0], "end": arrivals[-1] + 1000, "chunks": chunks,
                            "chunk_tokens": chunk_tokens, "status": 200, "prompt_tokens": 30, "completion_tokens": tokens,
                            "bytes": 4000, "reads": tokens, "engine_received": received, "engine_steps": steps,
                            "engine_step_tokens": [1] * tokens,
                        })
                        end = max(end, intended + 1000 + arrivals[-1] + 1000)
                    blocks.append({
                        "purpose": purpose, "round": number, "position": column, "column": column, "arm": arm, "load": load,
                        "seed": 1, "start": start, "end": end,
                        "frontend": usage(int(rng.uniform(4900, 5100) * requests * tokens * own)),
                        "engine": usage(ms), "client": usage(ms),
                        "noise": {"steal": 0.01, "otherCPU": 0.02, "loadAverage": 1.5},
                        "lateness": {"p50": 1000, "p99": 1000, "highest": 1000},
                    })
                    clock = end + ms
    answer = {"text": "hello", "reasoning": "", "tool_calls": [], "finish_reason": "stop", "token_ids": [], "pieces": [5]}
    answers = [
        {"arm": arm, "block": 0, "index": 0, "item": 0, "seed": "1", "intended": 0, "sent": 0, "end": 1, "status": 200,
         "prompt_tokens": 1, "completion_tokens": 1, "bytes": 1, "reads": 1,
         "choices": [dict(answer, text="hello" if arm == 0 else ATTACK)]}
        for arm in (0, 1)
    ]
    description = {
        "command": "ab", "arguments": [ATTACK], "version": "0.1.0", "startedAt": 1767225600,
        "arms": [{"name": "first"}, {"name": "second", "version": ATTACK}],
        "workload": {"name": "chat", "summary": "chat", "path": "/v1/chat/completions", "streaming": True,
                     "requestsPerBlock": requests},
        "loads": [{"poisson": {"rate": rate}} for rate in rates], "engine": "mock", "seed": 3,
        "machine": {"cpuModel": "a CPU", "cpus": 2, "kernel": "6.1", "memoryBytes": 1 << 33},
        "rules": {"latenessLimit": ms, "noiseLimit": 0.25, "stallThreshold": 50 * ms, "goodput": {}},
    }
    header = {"schema": "vllm-engine.records/1", "epoch": 1000 * ms, "requests": len(lines), "equivalence": [1, 1],
              "void": [], "description": description, "blocks": blocks}
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *lines, *answers]))
    return blocks, lines


def report(*arguments):
    return subprocess.run([BINARY, "report", *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    records = folder / "run.jsonl"
    blocks, lines = write_records(records)
    done = report(records, "--html", folder / "page.html", "--json", folder / "run.json")
    assert done.returncode == 0, done.stderr
    return folder / "page.html", json.loads((folder / "run.json").read_text()), blocks, lines, done.stdout


def test_numbers_follow_from_the_records(page):
    _, document, blocks, lines, table = page
    chosen = {i for i, block in enumerate(blocks) if block["purpose"] == "comparison" and block["load"] == 0}
    times = sorted((line["sent"] + line["first_token"]) / 1e6 for line in lines if line["block"] in chosen and line["arm"] == 1)
    middle = len(times) // 2
    median = times[middle] if len(times) % 2 else (times[middle - 1] + times[middle]) / 2
    metrics = {metric["name"]: metric for metric in document["loads"][0]["metrics"]}
    assert metrics["p50_ttft"]["values"]["second"] == pytest.approx(median, rel=1e-9)
    added = metrics["p50_ttft_added"]["comparisons"][0]
    assert added["verdict"] == "faster" and added["low"] < -0.5 < added["high"] + 0.1
    assert metrics["frontend_cpu_per_token"]["values"]["first"] == pytest.approx(5, rel=0.03)
    assert not document["equivalence"][0]["answers_equal"]
    assert "faster, but answers differ" in table and "\x1b" not in table


def test_rules_set_the_exit_status(page):
    records = page[0].with_name("run.jsonl")
    assert report(records, "--fail-if", "p50_ttft_added > +5% at 95%").returncode == 0
    failed = report(records, "--fail-if", "p50_ttft_added < -5% at 95%")
    assert failed.returncode == 1 and "p50_ttft_added < -5% at 95%" in failed.stderr
    assert report(records, "--fail-if", "unequal_answers > 0").returncode == 1
    wrong = report(records, "--fail-if", "p50_tfft > +5%")
    assert wrong.returncode == 2 and "known are: p50_ttft, " in wrong.stderr
    broken = page[0].with_name("broken.jsonl")
    broken.write_text(records.read_text()[:-10])
    cut = report(broken)
    assert cut.returncode == 2 and "line " in cut.stderr


class Document(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.tags, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for key, value in attributes:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href") or key.startswith("on"):
                self.links.append((tag, key, value))


def browse(folder, *arguments):
    assert CHROMIUM
    command = [
        CHROMIUM, "--headless", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", *(["--no-sandbox"] if os.getuid() == 0 else []), *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    # What the page itself said; the browser's own complaints about the machine are no business of ours.
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium, chromium-browser or google-chrome is installed")


@needs_browser
def test_browser_reads_the_page_without_complaint(page, tmp_path):
    dom, console = browse(tmp_path, "--dump-dom", page[0].as_uri())
    assert console == []
    document = Document(dom)
    assert FIGURES <= set(document.ids)
    assert len(document.ids) == len(set(document.ids))
    assert document.links == [] and "script" not in document.tags
    assert "owned" not in re.search("<title>(.*?)</title>", dom, re.S)[1].split("&lt;")[0]
    assert document.tags.count("figure") == document.tags.count("svg") == document.tags.count("figcaption") == document.tags.count("details")


@needs_browser
def test_no_text_leaves_its_drawing(page, tmp_path):
    # A copy that may run a script, which measures every text and reports through the document.
    probe = """<script>addEventListener('load', () => { let out = [], seen = 0;
      for (const svg of document.querySelectorAll('svg')) { const box = svg.getBoundingClientRect();
        for (const text of svg.querySelectorAll('text')) { const r = text.getBoundingClientRect(); seen++;
          if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1)
            out.push(svg.parentNode.id + ': ' + text.textContent); } }
      if (document.documentElement.scrollWidth > innerWidth) out.push('page is wider than the window');
      document.body.setAttribute('data-probe', JSON.stringify([seen, out])); });</script></body>"""
    text = page[0].read_text()
    text = re.sub("<meta http-equiv[^>]*>", "", text).replace("</body>", probe)
    copy = tmp_path / "probe.html"
    copy.write_text(text)
    for width in (1280, 700):
        dom, _ = browse(tmp_path, f"--window-size={width},900", "--dump-dom", copy.as_uri())
        found = re.search('data-probe="([^"]*)"', dom)[1].replace("&quot;", '"').replace("&amp;", "&")
        seen, outside = json.loads(found)
        assert seen > 100 and outside == [], (width, outside)


def first_pixel(path):
    """The top left pixel of a PNG: filters leave the first one of the first row as it is."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed = 8, b""
    while place < len(data):
        (size,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        if kind == b"IDAT":
            packed += data[place + 8 : place + 8 + size]
        place += size + 12
    return tuple(zlib.decompress(packed)[1:4])


@needs_browser
def test_light_dark_and_paper(page, tmp_path):
    pixels = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        browse(tmp_path, f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,900",
               f"--screenshot={picture}", page[0].as_uri())
        pixels[name] = first_pixel(picture)
    assert min(pixels["light"]) > 230 and max(pixels["dark"]) < 40, pixels
    paper = tmp_path / "page.pdf"
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page[0].as_uri())
    assert paper.read_bytes().startswith(b"%PDF-")
