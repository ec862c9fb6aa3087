"""What storages say. Needs: the authoring environment.

The bodies are as the storages' manuals document them; MinIO's own are in test_trigger_minio.py.
"""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InputError
from pipelines.triggers.events import written_objects


def s3(key: str = "flights/2013-01.parquet", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-11-28T10:00:00.000Z",
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "new-spans",
            "bucket": {"name": "data", "ownerIdentity": {"principalId": "A3"}, "arn": "arn:aws:s3:::data"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6"},
        },
    }
    return {"Records": [record]}


def sns(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:new-spans",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(message),
        "Timestamp": "2026-11-28T10:00:01.000Z",
        "SignatureVersion": "1",
    }


def event_bridge(kind: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "123456789012",
        "time": "2026-11-28T10:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:s3:::data"],
        "detail": {
            "version": "0",
            "bucket": {"name": "data"},
            "object": {"key": "flights/2013 01+.parquet", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184"},
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "reason": "PutObject",
        },
    }


def pub_sub(kind: str = "OBJECT_FINALIZE") -> dict[str, Any]:
    resource = {"kind": "storage#object", "bucket": "data", "name": "flights/2013 01.parquet", "size": "1024"}
    return {
        "message": {
            "attributes": {
                "notificationConfig": "projects/_/buckets/data/notificationConfigs/1",
                "eventType": kind,
                "payloadFormat": "JSON_API_V1",
                "bucketId": "data",
                "objectId": "flights/2013 01.parquet",
                "objectGeneration": "1764324000000000",
                "eventTime": "2026-11-28T10:00:00.000000Z",
            },
            "data": base64.b64encode(json.dumps(resource).encode()).decode(),
            "messageId": "2070443601311540",
            "publishTime": "2026-11-28T10:00:01.000Z",
        },
        "subscription": "projects/team/subscriptions/new-spans",
    }


GCS = {
    "specversion": "1.0",
    "id": "9",
    "type": "google.cloud.storage.object.v1.finalized",
    "source": "//storage.googleapis.com/projects/_/buckets/data",
    "subject": "objects/flights/2013-01.parquet",
    "time": "2026-11-28T10:00:00Z",
    "datacontenttype": "application/json",
}
STORED = {"bucket": "data", "name": "flights/2013-01.parquet", "generation": "1764324000000000", "size": "1024"}


def read(event: object, headers: dict[str, str] | None = None) -> list[str]:
    return written_objects(json.dumps(event).encode(), headers)


@pytest.mark.parametrize(
    ("event", "uri"),
    [
        (s3(), "s3://data/flights/2013-01.parquet"),
        (s3("flights/month%3D01/a+b%2Bc.csv"), "s3://data/flights/month=01/a b+c.csv"),
        (s3(name="ObjectCreated:CompleteMultipartUpload"), "s3://data/flights/2013-01.parquet"),
        (sns(s3()), "s3://data/flights/2013-01.parquet"),
        (event_bridge(), "s3://data/flights/2013 01+.parquet"),
        (pub_sub(), "gs://data/flights/2013 01.parquet"),
        ({**GCS, "data": STORED}, "gs://data/flights/2013-01.parquet"),
        (
            {"specversion": "1.0", "type": "com.amazonaws.s3.ObjectCreated:Put", "source": "x", "data": s3()},
            "s3://data/flights/2013-01.parquet",
        ),
        (
            {
                "message": {"data": base64.b64encode(json.dumps({**GCS, "data": STORED}).encode()).decode()},
                "subscription": "s",
            },
            "gs://data/flights/2013-01.parquet",
        ),
    ],
    ids=["s3", "escaped", "multipart", "sns", "eventbridge", "pubsub", "cloudevent", "s3 in cloudevent", "wrapped"],
)
def test_what_was_written(event: dict[str, Any], uri: str) -> None:
    assert read(event) == [uri]


def test_a_cloud_event_in_binary_mode_has_its_kind_in_the_headers() -> None:
    headers = {"ce-specversion": "1.0", "Ce-Type": GCS["type"], "ce-source": GCS["source"], "ce-id": "9"}
    assert read(STORED, headers) == ["gs://data/flights/2013-01.parquet"]


def test_several_records_in_one_event() -> None:
    both = {"Records": [*s3("a.csv")["Records"], *s3("b.csv")["Records"]]}
    assert read(both) == ["s3://data/a.csv", "s3://data/b.csv"]


@pytest.mark.parametrize(
    "event",
    [
        s3(name="ObjectRemoved:Delete"),
        s3(name="s3:ObjectAccessed:Get"),
        {"Records": []},
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-28T10:00:00Z", "Bucket": "data"},
        event_bridge("Object Deleted"),
        {**event_bridge(), "source": "aws.ec2"},
        pub_sub("OBJECT_DELETE"),
        pub_sub("OBJECT_METADATA_UPDATE"),
        {**GCS, "type": "google.cloud.storage.object.v1.deleted", "data": STORED},
    ],
)
def test_nothing_was_written(event: dict[str, Any]) -> None:
    assert read(event) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{" * 100_000, "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a JSON list"),
        (b'"s3"', "a JSON str"),
        (b"{}", "keys: none"),
        (b'{"hello": 1, "world": 2}', "keys: hello, world"),
        (b'{"Records": 7}', "TypeError"),
        (b'{"Records": [null]}', "TypeError"),
        (b'{"Records": [{"eventName": 3}]}', "AttributeError"),
        (b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {}}}]}', "KeyError: 'object'"),
        (b'{"message": {"data": "%%%"}, "subscription": "s"}', "not base64"),
        (b'{"message": {"data": "aGVsbG8="}, "subscription": "s"}', "not JSON"),
        (b'{"message": null, "subscription": "s"}', "AttributeError"),
        (b'{"detail-type": "Object Created", "source": "aws.s3"}', "KeyError: 'detail'"),
        (b'{"specversion": "1.0", "type": 5, "data": "x"}', "AttributeError"),
        (b'{"Type": "Notification", "TopicArn": "t", "Message": "no"}', "not JSON"),
        (
            b'{"Type": "SubscriptionConfirmation", "TopicArn": "t", "SubscribeURL": "https://sns/x"}',
            "open https://sns/x",
        ),
    ],
)
def test_what_is_no_event_is_told(body: bytes, says: str) -> None:
    with pytest.raises(InputError, match=r"^event: ") as caught:
        written_objects(body)
    assert says in str(caught.value)


def test_envelopes_are_opened_a_few_times_only() -> None:
    event: dict[str, Any] = s3()
    for _ in range(10):
        event = sns(event)
    with pytest.raises(InputError, match="more than 4 envelopes"):
        read(event)


_NAMES = st.sampled_from(
    [
        *("Records", "eventName", "s3", "bucket", "object", "key", "name"),
        *("message", "attributes", "eventType", "data", "subscription"),
        *("detail-type", "detail", "source", "specversion", "type", "Type", "TopicArn", "Message"),
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "ObjectCreated:Put", "aws.s3", "Notification"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=5))
def test_nothing_else_than_an_input_error_comes_of_any_json(event: dict[str, Any]) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(read(event), list)
