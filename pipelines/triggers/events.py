"""What object storages say when something was written.

| who | how it arrives |
|---|---|
| S3, MinIO and other S3 servers | `Records`; on AWS possibly inside an SNS notification |
| Amazon EventBridge | `detail-type: Object Created` |
| Cloud Storage | a Pub/Sub push, or CloudEvents (Eventarc) in structured or binary mode |

An event only says where to look: nothing else in it is believed.
"""

import base64
import binascii
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from components.errors import InputError

_GCS_WRITTEN = ("OBJECT_FINALIZE", "google.cloud.storage.object.v1.finalized")
_DEEPEST = 4
"""Envelopes around an event: S3 in SNS in CloudEvents is three."""
_KNOWN = "known: S3 and MinIO records, SNS, EventBridge, Pub/Sub push of Cloud Storage, CloudEvents"

Event = dict[str, Any]


def written_objects(body: bytes, headers: Mapping[str, str] | None = None) -> list[str]:
    """Reads the URIs of the objects that an event says were written; none for tests, removals and the like.

    Args:
        body: of the request, or the content of a file.
        headers: of the request; a CloudEvent in binary mode has its attributes there.

    Raises:
        InputError: it is not an event of a storage that we know.
    """
    attributes = {name[3:].lower(): value for name, value in (headers or {}).items() if name[:3].lower() == "ce-"}
    event = _parsed(body)
    if "specversion" in attributes and "specversion" not in event:
        event = {**attributes, "data": event}
    try:
        return _written(event, _DEEPEST)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"event: not as its kind is documented ({type(error).__name__}: {error}); {_KNOWN}") from error


def _parsed(body: bytes | str) -> Event:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"event: not JSON ({error}); send the notification as it is") from error
    if not isinstance(event, dict):
        raise InputError(f"event: a JSON {type(event).__name__}, not an object; {_KNOWN}")
    return event


def _written(event: Event, depth: int) -> list[str]:
    if depth == 0:
        raise InputError(f"event: more than {_DEEPEST} envelopes around it; send the notification as it is")
    if "Records" in event:
        return [uri for record in event["Records"] for uri in _s3_record(record)]
    if event.get("Event") == "s3:TestEvent":
        return []
    if event.get("Type") == "Notification" and "TopicArn" in event:
        return _written(_parsed(event["Message"]), depth - 1)
    if event.get("Type") == "SubscriptionConfirmation":
        raise InputError(f"event: SNS asks to confirm its subscription; open {event['SubscribeURL']} once")
    if "detail-type" in event:
        return _event_bridge(event)
    if "message" in event and "subscription" in event:
        return _pub_sub(event["message"])
    if "specversion" in event:
        return _cloud_event(event, depth)
    keys = ", ".join(sorted(event)[:5]) or "none"
    raise InputError(f"event: of no known kind (keys: {keys}); {_KNOWN}")


def _s3_record(record: Event) -> list[str]:
    # AWS says ObjectCreated:Put, MinIO s3:ObjectCreated:Put.
    if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
        return []
    # As in a form: a space is a plus sign.
    key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
    return [f"s3://{record['s3']['bucket']['name']}/{key}"]


def _event_bridge(event: Event) -> list[str]:
    if event.get("source") != "aws.s3" or event["detail-type"] != "Object Created":
        return []
    return [f"s3://{event['detail']['bucket']['name']}/{event['detail']['object']['key']}"]


def _pub_sub(message: Event) -> list[str]:
    attributes = message.get("attributes") or {}
    if "eventType" not in attributes:
        # Eventarc and others put a CloudEvent, or the event itself, into the data.
        try:
            data = base64.b64decode(message.get("data", ""), validate=True)
        except binascii.Error as error:
            raise InputError(f"event: the message's data is not base64 ({error}); {_KNOWN}") from error
        return _written(_parsed(data), 1)
    if attributes["eventType"] not in _GCS_WRITTEN:
        return []
    return [f"gs://{attributes['bucketId']}/{attributes['objectId']}"]


def _cloud_event(event: Event, depth: int) -> list[str]:
    kind = str(event.get("type", ""))
    if not kind.startswith("google.cloud.storage.object."):
        return _written(event["data"], depth - 1)
    if kind not in _GCS_WRITTEN:
        return []
    return [f"gs://{event['data']['bucket']}/{event['data']['name']}"]
