"""The receiver of events, over HTTP. Needs: the authoring environment."""

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

from components.errors import InputError, UnavailableError
from pipelines.project import LoadedProject, load_project
from pipelines.triggers import authentication, receiver
from pipelines.triggers.decision import Decision
from pipelines.triggers.receiver import Receiver
from pipelines.triggers.trigger import Trigger
from tests.pipelines.recording_server import recording_server
from tests.pipelines.test_project import SCHEMA, VALID
from tests.pipelines.test_trigger_events import pub_sub, s3
from tests.servers import free_port

SECRET = "correct-horse-battery-staple"
AUTHORIZED = {"Authorization": f"Bearer {SECRET}"}


class Served:
    """A receiver, what it started, and what it logged."""

    def __init__(self, project: LoadedProject, authenticate: authentication.Authenticate) -> None:
        self.started: list[Decision] = []
        self.fault: Exception | None = None
        self.log: list[str] = []
        self.server = Receiver("127.0.0.1", 0, Trigger(project, self._start), authenticate, self.log.append)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _start(self, decision: Decision) -> str:
        if self.fault:
            raise self.fault
        self.started.append(decision)
        return "started"

    def post(self, event: object, headers: dict[str, str] | None = None, path: str = "/events") -> httpx2.Response:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return httpx2.post(f"{self.url}{path}", content=body, headers=AUTHORIZED if headers is None else headers)

    def is_alive(self) -> bool:
        return httpx2.get(f"{self.url}/healthz").json() == {"status": "ok"}


Serve = Callable[[authentication.Authenticate], Served]


@pytest.fixture
def serve(tmp_path: Path, s3_bucket: str) -> Iterator[Serve]:
    """Serves a project whose source is in the bucket."""
    (tmp_path / "pipeline.yaml").write_text(VALID)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    project = load_project(tmp_path, [f"data.source={s3_bucket}/{{YYYY}}-{{MM}}.csv", "data.window=2025-01..2025-02"])
    running: list[tuple[Served, threading.Thread]] = []

    def make(authenticate: authentication.Authenticate) -> Served:
        served = Served(project, authenticate)
        thread = threading.Thread(target=served.server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        running.append((served, thread))
        return served

    yield make
    for served, thread in running:
        served.server.shutdown()
        thread.join()
        served.server.server_close()


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(authentication.from_environment({"LOCKGATE_TRIGGER_SECRET": SECRET}))


def written(bucket: str, month: str) -> dict[str, Any]:
    """Writes a span, and gives its event."""
    with fsspec.open(f"{bucket}/{month}.csv", "w") as file:
        file.write("customer\n1\n")
    event = s3(f"{month}.csv")
    event["Records"][0]["s3"]["bucket"]["name"] = bucket.removeprefix("s3://")
    return event


def test_a_complete_window_starts_retraining_once(served: Served, s3_bucket: str) -> None:
    answers = [served.post(written(s3_bucket, month)) for month in ("2025-01", "2025-02", "2025-02")]
    assert [answer.status_code for answer in answers] == [200, 202, 200]
    assert [answer.json()["action"] for answer in answers] == ["wait", "start", "ignore"]
    assert [decision.window for decision in served.started] == ["2025-01..2025-02"]
    assert answers[1].json()["key"] == served.started[0].key
    assert len(served.log) == 3


def test_many_events_at_once_start_retraining_once(served: Served, s3_bucket: str) -> None:
    events = [written(s3_bucket, month) for month in ("2025-01", "2025-02")] * 6
    threads = [threading.Thread(target=served.post, args=[event]) for event in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served.started) == 1
    assert served.is_alive()


def test_other_events_are_answered_too(served: Served) -> None:
    assert served.post(s3(name="ObjectRemoved:Delete")).json()["action"] == "ignore"
    assert served.post({"Service": "Amazon S3", "Event": "s3:TestEvent"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_who_does_not_know_the_secret_learns_nothing(served: Served, s3_bucket: str, headers: dict[str, str]) -> None:
    answer = served.post(written(s3_bucket, "2025-01"), headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {"error": "no token that counts here"}
    assert not served.log
    assert served.is_alive()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"\x00\xff", b'{"Records": 1}', b"[" * 100_000])
def test_what_is_no_event_is_refused_with_the_cause(served: Served, body: bytes) -> None:
    answer = served.post(body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("event: ")
    assert served.is_alive()


def test_other_methods_and_paths_are_refused(served: Served) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"):
        answer = httpx2.request(method, f"{served.url}/events", headers=AUTHORIZED)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), method
    assert served.post({}, path="/").status_code == 404
    assert httpx2.get(served.url).status_code == 404


def ask(served: Served, request: bytes) -> bytes:
    """Sends bytes, and nothing after them."""
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


POST = b"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (POST + b"\r\n", 411),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
        (POST + b"Content-Length: 1048577\r\n\r\n", 413),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: two\r\n\r\n{}", 400),
        (POST + b"Content-Length: 100\r\n\r\n{}", 400),
        (b"POST /events\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"POST /events HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (POST + b"".join(b"X-%d: 1\r\n" % index for index in range(200)) + b"\r\n", 431),
        (POST + b"X: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_requests_that_are_none(served: Served, request_bytes: bytes, status: int) -> None:
    answer = ask(served, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {status} ".encode()), answer[:200]
    assert json.loads(body)["error"]
    assert not served.started
    assert served.is_alive()


def test_a_silent_client_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver._Handler, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=30) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in connection.recv(65536)
    assert served.is_alive()


def test_more_connections_than_there_is_room_for_are_closed(served: Served) -> None:
    address = ("127.0.0.1", served.server.server_port)
    held = [socket.create_connection(address, timeout=30) for _ in range(receiver._MAX_CONNECTIONS)]
    try:
        for connection in held:
            connection.sendall(b"POST")  # it has been taken when the next one is
        with socket.create_connection(address, timeout=30) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (UnavailableError("CI is down"), 503, "CI is down"),
        (InputError("the token ghp_x is old"), 500, "see the receiver's log"),
    ],
)
def test_what_cannot_be_started_now_is_asked_for_again(
    served: Served, s3_bucket: str, fault: Exception, status: int, said: str
) -> None:
    written(s3_bucket, "2025-01")
    event = written(s3_bucket, "2025-02")
    served.fault = fault
    answer = served.post(event)
    assert (answer.status_code, answer.json()["error"]) == (status, said)
    assert str(fault) in served.log[-1]
    served.fault = None
    assert served.post(event).status_code == 202


# ---------------------------------------------------------------------------------------------- Pub/Sub


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey) -> str:
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


CLAIMS = {
    "iss": "https://accounts.google.com",
    "aud": "https://retrain.example.com",
    "email": "push@team.iam.gserviceaccount.com",
    "email_verified": True,
    "sub": "1",
}


@pytest.fixture
def google(key: rsa.RSAPrivateKey) -> Iterator[authentication.Authenticate]:
    """Accepts tokens that our key signed; a local server hands out its certificate."""
    with recording_server() as recording:
        recording.status, recording.body = 200, json.dumps({"key-1": certificate(key)}).encode()
        yield authentication.google_token(CLAIMS["aud"], CLAIMS["email"], recording.url)


def token(key: rsa.RSAPrivateKey, seconds: int = 3600, **claims: object) -> str:
    now = int(datetime.now(UTC).timestamp())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    signer = crypt.RSASigner.from_string(pem, "key-1")
    return jwt.encode(signer, {"iat": now - 60, "exp": now + seconds, **CLAIMS, **claims}).decode()


def unsigned(key: rsa.RSAPrivateKey) -> str:
    """The same claims, with an algorithm that needs no key."""
    _, claims, _ = token(key).split(".")
    head = base64.urlsafe_b64encode(b'{"alg": "none", "kid": "key-1", "typ": "JWT"}').decode().rstrip("=")
    return f"{head}.{claims}."


def test_pub_sub_proves_who_it_is_by_googles_token(
    serve: Serve, google: authentication.Authenticate, key: rsa.RSAPrivateKey
) -> None:
    served = serve(google)
    answer = served.post(pub_sub(), {"Authorization": f"Bearer {token(key)}"})
    assert (answer.status_code, answer.json()["action"]) == (200, "ignore")
    assert served.post(pub_sub(), {"Authorization": "Bearer x.y.z"}).status_code == 401


def test_tokens_that_google_made_for_others_do_not_count(
    google: authentication.Authenticate, key: rsa.RSAPrivateKey
) -> None:
    assert google(token(key))
    assert not google(token(key, aud="https://other.example.com"))
    assert not google(token(key, email="other@team.iam.gserviceaccount.com"))
    assert not google(token(key, email_verified=False))
    assert not google(token(key, iss="https://issuer.example.com"))
    assert not google(token(key, seconds=-120))
    assert not google(token(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    assert not google(unsigned(key))
    assert not google(SECRET)


def test_when_googles_keys_cannot_be_had_the_sender_tries_again(serve: Serve, key: rsa.RSAPrivateKey) -> None:
    served = serve(authentication.google_token(CLAIMS["aud"], CLAIMS["email"], f"http://127.0.0.1:{free_port()}"))
    assert served.post(pub_sub(), {"Authorization": f"Bearer {token(key)}"}).status_code == 503


# ------------------------------------------------------------------------------------------ environment


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "nobody could be trusted"),
        ({"LOCKGATE_TRIGGER_SECRET": ""}, "nobody could be trusted"),
        ({"LOCKGATE_TRIGGER_SECRET": "short"}, "has 5 characters"),
        ({"LOCKGATE_TRIGGER_SECRET": "correct horse battery staple"}, "without spaces"),
        ({"LOCKGATE_TRIGGER_AUDIENCE": "https://x"}, "set both"),
        ({"LOCKGATE_TRIGGER_CALLER": "a@b", "LOCKGATE_TRIGGER_SECRET": SECRET}, "set both"),
    ],
)
def test_a_receiver_that_anybody_could_use_does_not_start(environment: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        authentication.from_environment(environment)


def test_an_address_that_is_taken(served: Served, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose another --listen or --serve"):
        Receiver("127.0.0.1", served.server.server_port, served.server.trigger, lambda _: True, print)
