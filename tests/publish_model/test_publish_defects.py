"""What publish_model refuses, and that nothing is left behind then."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataRejectedError, InputError, LockgateError, UnavailableError
from components.settings import Publication
from tests.publish_model.blessed import SAVED_MODEL, bless, publish_blessed

Damage = Callable[[Path], dict[str, Any] | None]


def edit(file: str, **values: object) -> Damage:
    """Changes values in a JSON file."""

    def damage(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


def write(file: str, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return damage


def remove(path: str) -> Damage:
    def damage(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def change(**arguments: object) -> Damage:
    return lambda folder: dict(arguments)


DEFECTS: list[tuple[str, Damage, type[LockgateError], str]] = [
    (
        "verdict fail",
        edit("evaluation/evaluation.json", verdict="fail", reason="auc 0.5"),
        DataRejectedError,
        "auc 0.5",
    ),
    ("no evaluation", remove("evaluation/evaluation.json"), InputError, "has no evaluation.json"),
    ("evaluation no JSON", write("evaluation/evaluation.json", b"{"), InputError, "evaluation.json"),
    ("evaluation of other fields", edit("evaluation/evaluation.json", vedict="pass"), InputError, "vedict"),
    ("no saved model", remove("model/1/saved_model.pb"), InputError, "has no 1/saved_model.pb"),
    ("saved model empty", write("model/1/saved_model.pb", b""), InputError, "(0 bytes) is no SavedModel"),
    ("saved model torn", write("model/1/saved_model.pb", SAVED_MODEL[:-1]), InputError, "(5 bytes) is no SavedModel"),
    ("saved model a page", write("model/1/saved_model.pb", b"<!DOCTYPE html>"), InputError, "is no SavedModel"),
    ("saved model without a graph", write("model/1/saved_model.pb", b"\x08\x01"), InputError, "holds no graph"),
    ("graph of another type", write("model/1/saved_model.pb", b"\x10\x01"), InputError, "holds no graph"),
    ("no spec", remove("model/spec.json"), InputError, "spec.json' does not exist"),
    ("spec no JSON", write("model/spec.json", b"\xff\xfe"), InputError, "spec.json' is damaged"),
    ("spec without digest", write("model/spec.json", b"{}"), InputError, "digest"),
    ("digest no digest", edit("model/spec.json", weights_digest="../../x"), InputError, "digest"),
    ("no schema", remove("schema/schema.pbtxt"), InputError, "has no schema.pbtxt"),
    ("no statistics", remove("statistics/train.pb"), InputError, "holds no statistics"),
    ("no examples", remove("examples"), InputError, "has no manifest.json"),
    ("manifest no JSON", write("examples/manifest.json", b"[]"), InputError, "manifest.json"),
    ("name climbs out", change(name="../../etc"), InputError, "model name '../../etc'"),
    ("name empty", change(name=""), InputError, "model name ''"),
    ("unknown scheme", change(publication=Publication(store="ftp://host/models")), InputError, "unknown scheme 'ftp'"),
]


@pytest.mark.parametrize(("damage", "error", "message"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_a_defect_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, damage: Damage, error: type[LockgateError], message: str
) -> None:
    folder = bless(tmp_path / "run", "a")
    changes = damage(folder) or {}
    with pytest.raises(error) as caught:
        publish_blessed(folder, str(tmp_path / "store"), **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_file_in_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(InputError, match="Not a directory"):
        publish_blessed(bless(tmp_path / "run", "a"), str(tmp_path / "store"))
    assert (tmp_path / "store").read_text() == "mine"


def test_a_full_disk_leaves_no_version(tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: writing fails the same way."""
    import resource

    folder = bless(tmp_path / "run", "a")
    (folder / "model" / "1" / "big").write_bytes(bytes(300_000))
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            publish_blessed(folder, str(tmp_path / "store"))
        except UnavailableError as error:
            os._exit(4 if "free space" in str(error) else 1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert not list((tmp_path / "store").glob("*/versions/*"))
    assert publish_blessed(folder, str(tmp_path / "store")).version.startswith("v0001-")
    assert not list((tmp_path / "store").rglob("*.partial"))


@pytest.mark.parametrize("bucket", ["gs://no-such-bucket-here", "s3://no-such-bucket-here"])
def test_a_bucket_that_is_not_there_is_named(tmp_path: Path, bucket: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("gcs_url" if bucket.startswith("gs") else "s3_url")
    with pytest.raises(LockgateError, match="no-such-bucket-here"):
        publish_blessed(bless(tmp_path / "run", "a"), bucket)
