"""Who is told, and what: real HTTP and SMTP servers. Needs: the venv twin of the base image."""

import email
import email.policy
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError, UnavailableError
from tests.pipelines.kubeflow_server import serving
from tests.respond_to_verdict.test_retraining import schedule
from tests.respond_to_verdict.world import EVIDENCE, Mailbox, Told, World, record, told_by_http, told_by_mail
from tests.servers import free_port


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    with told_by_http() as told:
        monkeypatch.setenv("HOOK", f"{told.url}/services/T0/s3cret")
        monkeypatch.setenv("no_proxy", "*")
        yield told


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with told_by_mail() as box:
        yield box


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.respond_to_verdict.receivers.PAUSES", (0.0,) * 4)


WEBHOOK = {"kind": "webhook", "url": {"variable": "HOOK"}}
SLACK = {"kind": "slack", "url": {"variable": "HOOK"}}


def by_mail(box: Mailbox, **changes: Any) -> dict[str, Any]:
    people = {"sender": "lockgate@shop.test", "to": ["ann@shop.test", "bob@shop.test"]}
    return {"kind": "email", "host": "127.0.0.1", "port": box.port, "security": "none", **people, **changes}


def test_a_webhook_gets_everything_once(world: World, http: Told, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    hook = {**WEBHOOK, "token": {"file": str(tmp_path / "token")}}
    assert world.respond(record("page"), notify=[hook]).reason == "webhook was told"
    assert world.respond(record("page"), notify=[hook]).reason == "webhook was told before"
    ((path, headers, body),) = http.requests
    assert path == "/services/T0/s3cret"
    assert (headers["authorization"], headers["idempotency-key"]) == ("Bearer t0ken", f"{EVIDENCE}-page")
    assert body["findings"][1] == {
        "kind": "skew",
        "subject": "dep_time",
        "detail": "0.2 (limit: 0.1)",
        "verdict": "watch",
    }
    del body["findings"]
    assert body == {
        "event": "page",
        "project": "shop",
        "window": "2025-03",
        "judged": "2025-04-01T03:00:00+00:00",
        "reason": "quality: auc 0.61 <0.68 & falling>",
        "evidence": EVIDENCE,
        "model": "models/shop/versions/v0001-1a2b3c4d",
        "version": "v0001-1a2b3c4d",
        "run": "",
        "training_window": "",
    }


def test_slack_gets_text_without_markup_of_ours(world: World, http: Told) -> None:
    world.respond(record("page", findings=record("page").findings * 2000), notify=[SLACK])
    body = http.requests[0][2]
    assert body["text"] == "shop: PAGE for 2025-03"
    text = body["blocks"][0]["text"]["text"]
    assert "• quality: auc 0.61 &lt;0.68 &amp; falling&gt;" in text
    assert "… and 3995 more findings" in text
    assert len(text) <= 3000


def test_people_get_an_email(world: World, mailbox: Mailbox) -> None:
    world.respond(record("page", project="shop"), notify=[by_mail(mailbox)])
    (source,) = mailbox.mails
    mail = email.message_from_bytes(source, policy=email.policy.default)
    assert mail["Subject"] == "[Lockgate] shop: PAGE for 2025-03"
    assert mail["To"] == "ann@shop.test, bob@shop.test"
    assert mail["Message-ID"] == f"<{EVIDENCE}-page.shop@lockgate>"
    assert "quality: auc 0.61 <0.68 & falling>" in mail.get_content()


def test_words_that_would_break_a_header(world: World, mailbox: Mailbox) -> None:
    world.respond(record("page", reason="Größe\n.\nBcc: eve@evil.test"), notify=[by_mail(mailbox)])
    mail = email.message_from_bytes(mailbox.mails[0], policy=email.policy.default)
    assert mail["Bcc"] is None
    assert "Größe\n.\nBcc: eve@evil.test" in mail.get_content().replace("\r\n", "\n")
    with pytest.raises(InputError, match="an address is none"):
        world.respond(
            record("page", evidence="d" * 16), notify=[by_mail(mailbox, sender="a@b.test\nBcc: eve@evil.test")]
        )


def test_those_who_want_to_know_are_told_that_training_started(world: World, http: Told) -> None:
    with serving() as kubeflow:
        schedule(kubeflow)
        told = {**WEBHOOK, "events": ["retrain", "started"]}
        world.respond(record(), retrain=True, kfp_url=kubeflow.url, notify=[told, SLACK])
        (run,) = kubeflow.objects["runs"].values()
    retrain, started = (body for _, _, body in http.requests)
    assert (retrain["event"], retrain["run"]) == ("retrain", "")
    assert (started["event"], started["run"], started["training_window"]) == (
        "started",
        run["run_id"],
        "2025-02..2025-03",
    )


def test_a_receiver_that_is_busy_is_tried_again(world: World, http: Told, mailbox: Mailbox) -> None:
    http.statuses, http.headers = [503, 429], {"Retry-After": "0"}
    mailbox.refusals = {"RCPT": ["451 greylisted"] * 2, "DATA": ["421 too many"]}
    world.respond(record("page"), notify=[WEBHOOK, by_mail(mailbox)])
    assert (len(http.requests), len(mailbox.mails)) == (3, 1)


@pytest.mark.parametrize(
    ("status", "error"), [(503, UnavailableError), (404, InputError), (403, InputError), (302, InputError)]
)
def test_a_receiver_that_does_not_take_it(world: World, http: Told, status: int, error: type[Exception]) -> None:
    http.statuses, http.headers = [status] * 9, {"Location": "http://evil.test/"}
    with pytest.raises(error) as raised:
        world.respond(record("page"), notify=[SLACK])
    assert "s3cret" not in str(raised.value)
    assert len(http.requests) == (5 if status == 503 else 1)
    http.statuses = []
    assert world.respond(record("page"), notify=[SLACK]).reason == "slack was told"


def test_one_that_fails_keeps_nobody_else_from_being_told(world: World, http: Told, mailbox: Mailbox) -> None:
    gone = {"kind": "alertmanager", "url": "http://127.0.0.1:9"}
    with serving() as kubeflow:
        schedule(kubeflow)
        everybody = [{**one, "events": ["retrain"]} for one in (gone, WEBHOOK, by_mail(mailbox))]
        with pytest.raises(UnavailableError, match=r"Alertmanager at 127\.0\.0\.1:9 was not told, in 5 tries"):
            world.respond(record(), retrain=True, kfp_url=kubeflow.url, notify=everybody)
        assert len(kubeflow.objects["runs"]) == len(http.requests) == len(mailbox.mails) == 1


def test_nothing_secret_is_printed(
    world: World, http: Told, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/services/T0/s3cret")
    monkeypatch.setenv("TOKEN", "t0ken")
    with pytest.raises(UnavailableError) as raised:
        world.respond(record("page"), notify=[{**WEBHOOK, "token": {"variable": "TOKEN"}}])
    said = "".join([*capfd.readouterr(), str(raised.value), repr(raised.value.__cause__)])
    assert "s3cret" not in said
    assert "t0ken" not in said


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"variable": "NOT_SET"}, "variable NOT_SET is empty or not set"),
        ({"file": "/nowhere/url"}, "cannot be read: No such file"),
        ({"file": "/"}, "cannot be read: Is a directory"),
    ],
)
def test_secrets_that_are_not_there(world: World, place: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        world.respond(record("page"), notify=[{"kind": "slack", "url": place}])


@pytest.mark.parametrize("url", ["hooks.slack.com/x", "ftp://a/b", "http://[::1", "http://h:99999/"])
def test_urls_that_are_none(world: World, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HOOK", url)
    with pytest.raises(InputError, match="the URL of Slack is not like https://host/path"):
        world.respond(record("page"), notify=[SLACK])


def test_mail_servers_that_refuse(world: World, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox.refusals = {"RCPT": ["550 unknown"] * 2}
    with pytest.raises(InputError, match=r"refused for ann@shop\.test, bob@shop\.test"):
        world.respond(record("page"), notify=[by_mail(mailbox)])
    mailbox.refusals = {"MAIL": ["530 who are you?"]}
    with pytest.raises(InputError, match=r"530 who are you\?"):
        world.respond(record("page"), notify=[by_mail(mailbox)])
    monkeypatch.setenv("PASSWORD", "s3cret")
    guarded = {"user": "lockgate", "password": {"variable": "PASSWORD"}, "security": "starttls"}
    with pytest.raises(InputError, match="STARTTLS extension not supported by server") as raised:
        world.respond(record("page"), notify=[by_mail(mailbox, **guarded)])
    assert "s3cret" not in str(raised.value)
    with pytest.raises(InputError, match="no safe connection"):
        world.respond(record("page"), notify=[by_mail(mailbox, security="tls")])


@pytest.mark.parametrize(
    ("receiver", "words"),
    [
        ({"kind": "slack", "url": "https://hooks.slack.com/secret"}, "valid dictionary"),
        ({"kind": "slack", "url": {}}, "either a variable or a file"),
        ({"kind": "slack", "url": {"variable": "A", "file": "b"}}, "either a variable or a file"),
        ({"kind": "pager", "url": {"variable": "A"}}, "kind"),
        ({**WEBHOOK, "events": []}, "at least 1 item"),
        ({**WEBHOOK, "events": ["healthy"]}, "'watch', 'retrain', 'page' or 'started'"),
        (by_mail(Mailbox(port=25), user="me"), "both user and password"),
        (by_mail(Mailbox(port=25), user="me", password={"variable": "P"}), "anybody can read"),
    ],
)
def test_settings_that_make_no_sense(receiver: dict[str, Any], words: str) -> None:
    from pydantic import ValidationError

    from components.settings import Response

    with pytest.raises(ValidationError, match=words):
        Response.model_validate({"notify": [receiver]})


def test_alertmanager_itself_takes_it_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("no alertmanager on PATH (Debian: apt install prometheus-alertmanager)")
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "am.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    port = free_port()
    command = [
        program,
        f"--config.file={tmp_path}/am.yml",
        f"--storage.path={tmp_path}/am",
        "--cluster.listen-address=",
    ]
    with subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/-/ready")
            receiver = {"kind": "alertmanager", "url": url, "labels": {"team": "ml"}, "events": ["page", "watch"]}
            world.respond(record("page"), notify=[receiver])
            shutil.rmtree(world.folder / "models")  # as if nobody remembered: it is the same alert
            world.respond(record("page"), notify=[receiver])
            world.respond(record("watch", evidence="c" * 16), notify=[receiver])
            found = json.loads(_read(f"{url}/api/v2/alerts"))
        finally:
            process.terminate()
    assert sorted(one["labels"]["severity"] for one in found) == ["critical", "info"]
    page = next(one for one in found if one["labels"]["severity"] == "critical")
    assert page["labels"] == {
        "alertname": "LockgateVerdict",
        "project": "shop",
        "severity": "critical",
        "team": "ml",
        "verdict": "page",
        "window": "2025-03",
    }
    assert page["annotations"]["summary"] == "shop: PAGE for 2025-03"
    assert page["annotations"]["evidence"] == EVIDENCE


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            _read(url)
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def _read(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return bytes(answer.read())
