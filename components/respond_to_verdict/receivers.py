"""Sends messages: webhook, Slack, e-mail, Alertmanager. No secret is in an argument, a log or an error."""

import os
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.errors import InputError, UnavailableError
from components.respond_to_verdict.message import Message
from components.settings import (
    AlertmanagerReceiver,
    AnyReceiver,
    EmailReceiver,
    Secret,
    SlackReceiver,
    WebhookReceiver,
)

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between one try and the next."""
_LONGEST_PAUSE = 30.0
_SECONDS = (10, 30)
"""To connect, until the answer."""
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_SLACK_CHARACTERS = 2900
"""Slack takes 3,000 in a block."""
_SEVERITIES = {"page": "critical", "retrain": "warning", "watch": "info", "started": "info"}


def send(receiver: AnyReceiver, message: Message) -> str:
    """Sends a message, with some tries; gives the receiver's kind.

    Raises:
        InputError: a secret is not there, or the receiver refuses.
        UnavailableError: it does not answer, or is busy.
    """
    match receiver:
        case WebhookReceiver():
            _post("webhook", read_secret(receiver.url), webhook_body(message), receiver.token, message)
        case SlackReceiver():
            _post("Slack", read_secret(receiver.url), slack_body(message), None, message)
        case AlertmanagerReceiver():
            url = f"{receiver.url.rstrip('/')}/api/v2/alerts"
            _post("Alertmanager", url, alerts(receiver, message), receiver.token, message)
        case EmailReceiver():
            _mail(receiver, message)
    return receiver.kind


def read_secret(secret: Secret) -> str:
    """Reads a secret.

    Raises:
        InputError: it is not there, or empty.
    """
    if secret.variable:
        found, where = os.environ.get(secret.variable, ""), f"variable {secret.variable}"
    else:
        where = f"file '{secret.file}'"
        try:
            found = Path(secret.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InputError(f"monitoring.response.notify: {where} cannot be read: {reason}") from error
    if not found.strip():
        raise InputError(f"monitoring.response.notify: {where} is empty or not set; put the secret there")
    return found.strip()


# --------------------------------------------------------------------------------------------- bodies


def webhook_body(message: Message) -> dict[str, Any]:
    """Gives the JSON of the webhook."""
    return {
        "event": message.event,
        "project": message.project,
        "window": message.window,
        "judged": message.judged.isoformat(),
        "reason": message.reason,
        "evidence": message.evidence,
        "model": message.model,
        "version": message.version,
        "findings": message.findings,
        "run": message.run,
        "training_window": message.training_window,
    }


def slack_body(message: Message) -> dict[str, Any]:
    """Gives what incoming webhooks of Slack take: blocks, and a text for notifications."""
    lines = "\n".join(f"• {_escaped(line)}" for line in message.lines)
    text = f"*{_escaped(message.title)}*\n{lines}"[:_SLACK_CHARACTERS]
    return {
        "text": _escaped(message.title),
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}],
    }


def alerts(receiver: AlertmanagerReceiver, message: Message) -> list[dict[str, Any]]:
    """Gives what Alertmanager's API v2 takes. The same labels are the same alert, however often they are sent.

    It stands as long as a window is: until the next one is judged.
    """
    now = datetime.now(UTC)
    lasts = max(message.end - message.start, timedelta(hours=1))
    return [
        {
            "labels": {
                **receiver.labels,
                "alertname": "LockgateVerdict" if message.event != "started" else "LockgateTrainingStarted",
                "project": message.project,
                "verdict": "retrain" if message.event == "started" else message.event,
                "window": message.window,
                "severity": _SEVERITIES[message.event],
            },
            "annotations": {
                "summary": message.title,
                "description": "\n".join(message.lines),
                "evidence": message.evidence,
            },
            "startsAt": now.isoformat(),
            "endsAt": (now + lasts).isoformat(),
        }
    ]


def mail(receiver: EmailReceiver, message: Message) -> EmailMessage:
    """Gives the e-mail; the same event on the same evidence has the same Message-ID."""
    made = EmailMessage()
    made["Subject"] = f"[Lockgate] {message.title}"
    made["From"] = receiver.sender
    made["To"] = ", ".join(receiver.to)
    made["Date"] = message.judged
    made["Message-ID"] = f"<{message.name}.{message.project}@lockgate>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content("\n".join([message.title, "", *message.lines, ""]))
    return made


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -------------------------------------------------------------------------------------------- sending


class _BusyError(Exception):
    """It may work a little later."""

    def __init__(self, said: str, after: float = 0.0) -> None:
        super().__init__(said)
        self.after = after


def _try(receiver: str, attempt: Callable[[], None]) -> None:
    said = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            attempt()
            return
        except _BusyError as busy:
            said = str(busy)
            time.sleep(min(busy.after, _LONGEST_PAUSE))
    raise UnavailableError(f"{receiver} was not told, in {len(PAUSES) + 1} tries: {said}")


def _post(receiver: str, url: str, body: object, token: Secret | None, message: Message) -> None:
    import requests

    host = _host(receiver, url)
    headers = {"Idempotency-Key": message.name}
    if token:
        headers["Authorization"] = f"Bearer {read_secret(token)}"

    def attempt() -> None:
        try:
            # A redirect would be followed by a GET, and to where nobody has said that messages may go.
            answer = requests.post(url, json=body, headers=headers, timeout=_SECONDS, allow_redirects=False)
        except requests.exceptions.SSLError:
            raise InputError(f"{receiver} at {host}: its certificate is not accepted; see REQUESTS_CA_BUNDLE") from None
        except requests.RequestException as error:
            # Its text holds the URL, which is a secret.
            raise _BusyError(f"{host} does not answer ({type(error).__name__})") from None
        if answer.status_code in _TRANSIENT:
            raise _BusyError(f"{host} answers {answer.status_code}", _retry_after(answer.headers))
        if not 200 <= answer.status_code < 300:
            raise InputError(f"{receiver} at {host} answers {answer.status_code}; check its URL and token")

    _try(f"{receiver} at {host}", attempt)


def _host(receiver: str, url: str) -> str:
    """Gives the part of a URL that is no secret.

    Raises:
        InputError: it is no URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"monitoring.response.notify: the URL of {receiver} is not like https://host/path")
    return f"{host}:{port}" if port else host


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _mail(receiver: EmailReceiver, message: Message) -> None:
    try:
        made = mail(receiver, message)
    except ValueError as error:  # a line break in an address
        raise InputError(f"monitoring.response.notify: an address is none: {error}") from error
    password = read_secret(receiver.password) if receiver.password else ""
    server = f"{receiver.host}:{receiver.port}"

    def attempt() -> None:
        try:
            with _connected(receiver) as smtp:
                if password:
                    smtp.login(receiver.user, password)
                smtp.send_message(made)
        except ssl.SSLError as error:
            raise InputError(f"e-mail by {server}: no safe connection ({error.reason}); see `security`") from None
        except smtplib.SMTPNotSupportedError as error:
            raise InputError(f"e-mail by {server}: {error}; see `security` and `user`") from None
        except smtplib.SMTPRecipientsRefused as error:
            # 4xx means later, as at servers that let strangers wait.
            if any(code < 500 for code, _ in error.recipients.values()):
                raise _BusyError(f"{server} does not take the addresses yet") from None
            raise InputError(f"e-mail by {server}: refused for {', '.join(error.recipients)}") from None
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error
            said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            if error.smtp_code < 500:
                raise _BusyError(f"{server} answers {error.smtp_code} {said}") from None
            raise InputError(f"e-mail by {server}: {error.smtp_code} {said}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise _BusyError(f"{server} does not answer ({type(error).__name__})") from None

    _try(f"e-mail by {server}", attempt)


def _connected(receiver: EmailReceiver) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if receiver.security == "tls":
        return smtplib.SMTP_SSL(receiver.host, receiver.port, timeout=_SECONDS[1], context=context)
    smtp = smtplib.SMTP(receiver.host, receiver.port, timeout=_SECONDS[1])
    try:
        if receiver.security == "starttls":
            smtp.starttls(context=context)
    except BaseException:
        smtp.close()
        raise
    return smtp
