"""Clients of Kafka: what all of them are told, and what their errors mean.

How to log in comes from the environment, never from arguments: LOCKGATE_KAFKA_ and the name of a property of librdkafka
that begins with security, sasl or ssl, in capitals and with underscores, e.g. LOCKGATE_KAFKA_SASL_PASSWORD. The same
with _FILE behind it names a file that holds the value, as a mounted secret does.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from components.credentials import secret
from components.errors import InputError, UnavailableError

PREFIX = "LOCKGATE_KAFKA_"
_FILE = "_FILE"
_GROUPS = ("security.", "sasl.", "ssl.", "enable.ssl.")
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}

logger = logging.getLogger("lockgate")
# Its lines repeat for each broker and each try what errors say once.
_client_logger = logging.getLogger("lockgate.librdkafka")
_client_logger.setLevel(logging.CRITICAL)


def properties(servers: str) -> dict[str, Any]:
    """Gives what every client is told: where the brokers are, and how to log in.

    Args:
        servers: bootstrap servers, with commas between them.

    Raises:
        InputError: a variable is about something else than logging in.
    """
    told: dict[str, Any] = {"bootstrap.servers": servers, "client.id": "lockgate", "logger": _client_logger}
    for variable in sorted(name for name in os.environ if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX).removesuffix(_FILE)
        if name.startswith("SSL_") and variable.endswith(_FILE) and name.endswith("_LOCATION"):
            raise InputError(f"{variable}: the property itself is a path; set {PREFIX}{name} to it")
        known = name.lower().replace("_", ".")
        if not known.startswith(_GROUPS):
            raise InputError(
                f"{variable}: only {', '.join(group + '*' for group in _GROUPS)} come from the environment"
            )
        told[known] = secret(PREFIX + name)
    return told


@contextlib.contextmanager
def reaching(servers: str) -> Iterator[None]:
    """Turns the client's errors into ours.

    Raises:
        InputError: the broker refuses, or the client's properties are wrong.
        UnavailableError: no broker answers.
    """
    try:
        yield
    except KafkaException as error:
        raise told_as(error.args[0], servers) from error


def told_as(error: KafkaError, servers: str) -> InputError | UnavailableError:
    """Says what an error of the client means for whoever runs it."""
    if error.code() in _REFUSED:
        return InputError(
            f"Kafka at '{servers}' refuses: {error.str()}; check {PREFIX}* in the environment, and the ACLs"
        )
    if error.code() in (KafkaError._INVALID_ARG, KafkaError._CONFLICT, KafkaError._UNKNOWN_PROTOCOL):
        return InputError(f"Kafka's client refuses its settings: {error.str()}; check {PREFIX}* in the environment")
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return InputError(f"Kafka at '{servers}': {error.str()}; make the topic, or check its name")
    return UnavailableError(f"Kafka at '{servers}' does not answer: {error.str()}; check that it runs and is reachable")


def partitions(servers: str, topic: str, seconds: float = 10.0) -> list[int]:
    """Lists the partitions of a topic.

    Raises:
        InputError: there is no such topic, or it may not be seen.
        UnavailableError: no broker answers.
    """
    refusals: list[KafkaError] = []

    def told(error: KafkaError) -> None:
        if error.code() in _REFUSED:
            refusals.append(error)

    with reaching(servers):
        admin = AdminClient(properties(servers) | {"error_cb": told})
        deadline = time.monotonic() + seconds
        while True:
            try:
                listed = admin.list_topics(topic, timeout=min(2.0, seconds))
                break
            except KafkaException:
                # A broker that refuses who logs in just hangs up; why, the callback is told.
                if refusals:
                    raise told_as(refusals[0], servers) from None
                if time.monotonic() > deadline:
                    raise
    found = listed.topics.get(topic)
    if found is None or found.error is not None or not found.partitions:
        known = sorted(name for name in admin.list_topics(timeout=5).topics if not name.startswith("__"))[:10]
        raise InputError(f"Kafka at '{servers}' has no topic '{topic}' (it has: {', '.join(known) or 'none'}); make it")
    return sorted(found.partitions)
