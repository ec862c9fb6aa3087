"""What the server says of itself is so: its OpenAPI document against its answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from tests.fuzz.served import ANSWERS, REQUESTS, Server

OPERATIONS = 15
COVERAGE = 500  # requests that schemathesis makes of the document whatever else it is told


def test_answers_are_as_described(server: Server, tmp_path: Path) -> None:
    # Not in pytest's process: its plugin does not know this pytest.
    report = tmp_path / "report.har"
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json", "--no-color"),
            # That a shape and its data agree, and that a text is a tf.Example, no schema says.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--max-examples", str(max(1, (REQUESTS // 2 - COVERAGE) // OPERATIONS))),
            *("--report", "har", "--report-har-path", report),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    for entry in json.loads(report.read_text())["log"]["entries"]:
        ANSWERS["REST", str(entry["response"]["status"])] += 1
    assert done.returncode == 0, done.stdout[-5000:]


def test_the_document_is_valid(server: Server) -> None:
    validate(document(server))


def test_each_example_is_answered(server: Server) -> None:
    described = document(server)
    answered = 0
    for path, operations in described["paths"].items():
        for media in operations.get("post", {}).get("requestBody", {}).get("content", {}).values():
            for example in media.get("examples", {}).values():
                place = path.replace("{version}", described["info"]["version"])
                answer = server.session.post(server.url + place, json=example["value"])
                assert answer.status_code == 200, answer.text
                schema = operations["post"]["responses"]["200"]["content"]["application/json"]["schema"]
                Draft202012Validator({**schema, "components": described["components"]}).validate(answer.json())
                answered += 1
    assert answered == sum("post" in operations for operations in described["paths"].values()) > 0


def test_the_row_is_the_models(server: Server) -> None:
    row = document(server)["components"]["schemas"]["Row"]
    metadata = server.session.get(f"{server.url}/v2/models/toy").json()
    # The key is no input of the model, but may be sent.
    assert list(row["properties"]) == [*(tensor["name"] for tensor in metadata["inputs"]), "id"]
    assert row["required"] == metadata["properties"]["required"]
    # Known values are told, others are taken.
    known, *others = row["properties"]["colour"]["anyOf"]
    assert known["enum"] == metadata["properties"]["choices"]["colour"]
    assert {"type": "string"} in others


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/v1/models/", "/v3"])
def test_what_is_not_there_leads_to_the_document(server: Server, path: str) -> None:
    answer = server.session.get(server.url + path)
    assert answer.status_code == 404
    assert "/openapi.json" in answer.json()["error"]


def document(server: Server) -> Any:
    return server.session.get(f"{server.url}/openapi.json").json()
