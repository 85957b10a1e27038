"""TLS with certificates made by openssl: mutual authentication, and certificates exchanged under load."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import threading

import pytest

from foreign import each_foreign
from server import DEFAULT_MODEL, ROOT, START_DEADLINE, wait_until

ENGINE = ROOT / "Engine/build/blas-engine"

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program")


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder, name="ca"):
        self.folder, self.name = pathlib.Path(folder), name
        self.folder.mkdir(exist_ok=True)
        self.key, self.certificate = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                     f"/CN={name}", "-keyout", self.key, "-out", self.certificate)

    @staticmethod
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    def issue(self, name):
        """Paths of a certificate for localhost and of its key; `name` is its common name."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self.folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", "1",
                     "-extfile", extensions, "-out", certificate)
        return certificate, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def start(start_server):
    def start(*args):
        server = start_server("mock", "--tokenizer", str(DEFAULT_MODEL), "--served-model-name", "m", "--mock-itl-ms", "20", *args,
                              wait=False)
        assert wait_until(lambda: "Try it" in server.log() or server.process.poll() is not None, START_DEADLINE)
        server.remember_processes()
        return server

    return start


def client_context(authority, certificate=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if certificate:
        context.load_cert_chain(*certificate)
    return context


def connect(server, context):
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
    connection.connect()
    return connection


def common_name(connection):
    return dict(pair[0] for pair in connection.sock.getpeercert()["subject"])["commonName"]


def served_name(server, context):
    """The name in the certificate that a new connection gets."""
    connection = connect(server, context)
    try:
        return common_name(connection)
    finally:
        connection.close()


def ask(connection, path="/v1/models"):
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def replace(target, source):
    """As a careful program does it: a new file under another name, then one rename."""
    temporary = target.with_suffix(".new")
    shutil.copy(source, temporary)
    os.replace(temporary, target)


def test_certificate_and_key_are_exchanged_under_load(start, authority, tmp_path):
    first, second = authority.issue("first"), authority.issue("second")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    shutil.copy(first[0], certificate)
    shutil.copy(first[1], key)
    server = start("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--enable-ssl-refresh")
    context = client_context(authority)
    kept = connect(server, context)
    assert common_name(kept) == "first"

    # An open stream, and handshakes without a pause while the files change.
    stream = connect(server, context)
    body = {"model": "m", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    stream.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = stream.getresponse()
    assert answer.readline().startswith(b"data:")
    names, failures, stopping = set(), [], threading.Event()

    def shake_hands():
        while not stopping.is_set():
            try:
                names.add(served_name(server, context))
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=shake_hands) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: "first" in names, 10)
    replace(certificate, second[0])
    replace(key, second[1])
    assert wait_until(lambda: "second" in names, 20), server.log()[-2000:]
    # It stays at that.
    assert {served_name(server, context) for _ in range(5)} == {"second"}
    stopping.set()
    for thread in threads:
        thread.join(20)
    assert failures == [] and names == {"first", "second"}
    # What was open goes on with the certificate it was opened with.
    assert answer.readline() == b"\n" and answer.readline().startswith(b"data:")
    assert ask(connect(server, context)) == 200
    stream.close()
    assert "new connections use the changed certificate" in server.log()


def test_broken_file_keeps_the_old_certificate(start, authority, tmp_path):
    first, second = authority.issue("before"), authority.issue("after")
    pem = tmp_path / "server.pem"
    pem.write_bytes(first[0].read_bytes() + first[1].read_bytes())
    server = start("--ssl-certfile", str(pem), "--enable-ssl-refresh")
    context = client_context(authority)
    complaint = "the changed certificate is not used, the old one stays"

    def break_with(content, count):
        temporary = tmp_path / "broken"
        temporary.write_bytes(content)
        os.replace(temporary, pem)
        assert wait_until(lambda: server.log().count(complaint) == count, 10), server.log()[-2000:]
        assert served_name(server, context) == "before"

    break_with(b"-----BEGIN CERTIFICATE-----\nnonsense\n", 1)
    # A key that belongs to another certificate.
    break_with(first[0].read_bytes() + second[1].read_bytes(), 2)
    pem.unlink()
    assert wait_until(lambda: server.log().count(complaint) == 3, 10)
    assert served_name(server, context) == "before"
    pem.write_bytes(second[0].read_bytes() + second[1].read_bytes())
    assert wait_until(lambda: served_name(server, context) == "after", 20), server.log()[-2000:]
    assert server.log().count(complaint) == 3, "each broken state costs one line"


def test_links_are_followed(start, authority, tmp_path):
    """As in Kubernetes: the files are links through a link to a folder, and that one is exchanged."""
    for name in ("one", "two"):
        certificate, key = authority.issue(name)
        folder = tmp_path / f"..{name}"
        folder.mkdir()
        shutil.copy(certificate, folder / "tls.crt")
        shutil.copy(key, folder / "tls.key")
    (tmp_path / "..data").symlink_to("..one")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    server = start("--ssl-certfile", str(tmp_path / "tls.crt"), "--ssl-keyfile", str(tmp_path / "tls.key"), "--enable-ssl-refresh")
    context = client_context(authority)
    assert served_name(server, context) == "one"
    (tmp_path / "..next").symlink_to("..two")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    assert wait_until(lambda: served_name(server, context) == "two", 20), server.log()[-2000:]


def test_without_the_option_the_certificate_stays(start, authority, tmp_path):
    first, second = authority.issue("fixed"), authority.issue("ignored")
    pem = tmp_path / "server.pem"
    pem.write_bytes(first[0].read_bytes() + first[1].read_bytes())
    server = start("--ssl-certfile", str(pem))
    pem.write_bytes(second[0].read_bytes() + second[1].read_bytes())
    context = client_context(authority)
    assert {served_name(server, context) for _ in range(3)} == {"fixed"}
    assert "changed certificate" not in server.log()


@pytest.mark.parametrize("requirement", [1, 2])
def test_clients_show_certificates(start, authority, tmp_path, requirement):
    certificate, key = authority.issue("server")
    server = start("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ca-certs", str(authority.certificate),
                   "--ssl-cert-reqs", str(requirement))
    assert ask(connect(server, client_context(authority, authority.issue("client")))) == 200

    def is_let_in(context):
        try:
            return ask(connect(server, context)) == 200
        except (OSError, http.client.HTTPException):
            return False

    assert is_let_in(client_context(authority)) == (requirement == 1), "without a certificate"
    stranger = Authority(tmp_path / "other", "stranger")
    assert not is_let_in(client_context(authority, stranger.issue("intruder"))), "of an authority that is not trusted"


def test_ciphers(start, authority):
    certificate, key = authority.issue("cipher")
    server = start("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384")
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = connect(server, context)
    assert connection.sock.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384" and ask(connection) == 200
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        connect(server, context)


@pytest.mark.parametrize("args, text", [
    (["--ssl-ciphers", "ECDHE+AESGCM:NO-SUCH-CIPHER"], "ssl_ciphers: 'NO-SUCH-CIPHER' is no cipher suite"),
    (["--ssl-ciphers", "HIGH:!ECDHE:!kRSA"], "ssl_ciphers: no cipher suite is left"),
    (["--ssl-keyfile", "/nonexistent.key"], "ssl_keyfile: /nonexistent.key cannot be used"),
])
def test_unusable_options_end_the_start(start, authority, args, text):
    certificate, key = authority.issue("unusable")
    words = ["--ssl-certfile", str(certificate)] + ([] if "--ssl-keyfile" in args else ["--ssl-keyfile", str(key)])
    server = start(*words, *args)
    assert server.wait_exit(20) == 4 and text in server.log(), server.log()[-2000:]


@each_foreign
def test_new_connections_get_503_while_a_foreign_frontend_finishes(start, authority, foreign, tmp_path, monkeypatch):
    """The supervisor speaks no TLS: a process of our frontend's program answers in its place."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    certificate, key = authority.issue("drained")
    server = start(*foreign, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--max-model-len", "2048",
                   "--shutdown-timeout", "60")
    context = client_context(authority)
    stream = connect(server, context)
    stream.request("POST", "/v1/completions", json.dumps({"model": "m", "prompt": "x", "max_tokens": 300, "ignore_eos": True,
                                                          "stream": True}), {"Content-Type": "application/json"})
    answer = stream.getresponse()
    assert answer.status == 200 and answer.readline().startswith(b"data: {")
    server.process.send_signal(signal.SIGTERM)
    seen = []

    def refused():
        connection = connect(server, context)
        connection.request("GET", "/v1/models")
        refusal = connection.getresponse()
        seen.append((refusal.status, refusal.getheader("Retry-After"), refusal.read()))
        connection.close()
        return seen[-1][0] == 503

    def begins():
        try:
            return refused()
        except OSError as error:  # a handshake that the frontend cuts when it stops accepting
            seen.append(error)

    assert wait_until(begins, 10), seen
    assert seen[-1][1] == "1" and json.loads(seen[-1][2])["error"]["message"] == "The server is shutting down."
    assert all(refused() for _ in range(10)), seen
    assert answer.read().rstrip().endswith(b"data: [DONE]")
    stream.close()
    assert server.wait_exit(15) == 0
    server.assert_gone()


@each_foreign
def test_503_while_a_foreign_frontend_is_replaced_with_its_engine(start, authority, foreign, tmp_path, monkeypatch):
    """The engine's successor waits for a file, so that the time between is long enough to look at."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    gate, engine = tmp_path / "gate", tmp_path / "engine"
    gate.touch()
    engine.write_text(f"#!/bin/sh\nwhile ! [ -e {gate} ]; do sleep 0.02; done\nexec {ENGINE} \"$@\"\n")
    engine.chmod(0o755)
    certificate, key = authority.issue("replaced")
    server = start(*foreign, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--max-model-len", "2048",
                   "--restart", "on-failure", "--engine-binary", str(engine))
    context = client_context(authority)
    seen = []

    def gets(code):
        try:
            connection = connect(server, context)
            connection.request("GET", "/v1/models")
            answer = connection.getresponse()
            seen.append((answer.status, answer.getheader("Retry-After"), answer.read()))
            connection.close()
            return answer.status == code
        except OSError as error:  # a connection that the old frontend took with it
            seen.append(error)

    assert gets(200)
    gate.unlink()
    os.kill(server.child("engine"), signal.SIGKILL)
    assert wait_until(lambda: gets(503) and b"being restarted" in seen[-1][2], 20), seen
    assert seen[-1][1] == "1" and "The engine is back" not in server.log()
    assert all(gets(503) for _ in range(10)), seen
    gate.touch()
    assert wait_until(lambda: "The engine is back" in server.log(), 120), server.log()[-3000:]
    assert all(gets(200) for _ in range(10)), seen
    server.stop()
