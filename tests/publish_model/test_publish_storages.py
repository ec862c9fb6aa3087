"""Publishing on every kind of storage: several publishers at once, and publishers that are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components import storage
from components.model_store import ModelStore
from tests.publish_model import blessed
from tests.publish_model.blessed import NAME, bless, die_at, publish_blessed


@pytest.fixture(params=["local", "gs", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "store")
    bucket = request.getfixturevalue("gcs_bucket" if request.param == "gs" else "s3_bucket")
    return f"{bucket}/models"


def start(store: str, folder: Path, *death: str) -> "subprocess.Popen[str]":
    command = [sys.executable, blessed.__file__, store, str(folder), *death]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def files_in(uri: str) -> dict[str, bytes]:
    """The content of all files, by path below the store; but for the lock."""
    fs, root = storage.filesystem(uri)
    paths = [path for path in fs.find(root) if not path.endswith(".lock")]
    return {path.removeprefix(root): fs.cat_file(path) for path in paths}


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """Empties the files that say when; two publications of the same do not differ in anything else."""
    timed = ("card.", "v0001.json", "000001.json")
    return {path: b"" if path.rpartition("/")[2].startswith(timed) else content for path, content in files.items()}


def test_publishers_at_once_lose_nothing_and_publish_one_model_once(store_uri: str, tmp_path: Path) -> None:
    weights = ["a", "b", "c", "c", "a"]
    folders = [bless(tmp_path / str(index), w) for index, w in enumerate(weights)]
    publishers = [start(store_uri, folder) for folder in folders]
    printed = []
    for publisher in publishers:
        out, error = publisher.communicate(timeout=120)
        assert publisher.returncode == 0, error
        printed.append(out.strip())
    store = ModelStore(store_uri, NAME)
    cards = store.cards()
    assert [card.version[:5] for card in cards] == ["v0001", "v0002", "v0003"]
    assert printed[0] == printed[4]
    assert printed[2] == printed[3]
    assert set(printed) == {card.version for card in cards}
    assert store.latest() == cards[-1].version
    folders_left = {path.split("/")[3] for path in files_in(store_uri) if path.startswith(f"/{NAME}/versions/v")}
    assert {name for name in folders_left if not name.endswith(".json")} == set(printed)
    for card in cards:
        store.download(card.version, tmp_path / "downloaded" / card.version)


def test_promotions_at_once_are_all_logged(store_uri: str, tmp_path: Path) -> None:
    publish_blessed(bless(tmp_path / "a", "a"), store_uri)
    script = f"from components.model_store import ModelStore; ModelStore({store_uri!r}, {NAME!r}).promote('1')"
    promoters = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [promoter.wait(timeout=120) for promoter in promoters] == [0] * 4
    promotions = ModelStore(store_uri, NAME).promotions()
    assert [promotion.action for promotion in promotions] == ["publish"] + ["promote"] * 4


def test_a_publisher_killed_while_it_uploads_can_run_again(store_uri: str, tmp_path: Path) -> None:
    folder = bless(tmp_path / "a", "a")
    killed = start(store_uri, folder, str(folder / "model"), "6")  # three files: read for digests, then to upload
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert ModelStore(store_uri, NAME).cards() == []
    assert ModelStore(store_uri, NAME).latest() is None
    other = publish_blessed(bless(tmp_path / "b", "b"), store_uri)
    again = publish_blessed(folder, store_uri)
    assert [other.version[:5], again.version[:5]] == ["v0001", "v0002"]
    assert not [path for path in files_in(store_uri) if ".partial" in path]
    folders_left = {path.split("/")[3] for path in files_in(store_uri) if path.startswith(f"/{NAME}/versions/v")}
    assert {name for name in folders_left if not name.endswith(".json")} == {other.version, again.version}


def test_a_kill_at_any_moment_changes_nothing(tmp_path: Path) -> None:
    folder = bless(tmp_path / "a", "a")
    undisturbed = str(tmp_path / "undisturbed")
    publish_blessed(folder, undisturbed)
    expected = without_times(files_in(undisturbed))
    count = 0
    while True:
        count += 1
        store = str(tmp_path / f"store{count}")
        was_killed = _publish_in_child(folder, store, count)
        cards = ModelStore(store, NAME).cards()
        for card in cards:  # what counts as published is whole, at any moment
            ModelStore(store, NAME).download(card.version, tmp_path / "downloads" / str(count))
        publish_blessed(folder, store)
        assert without_times(files_in(store)) == expected, count
        assert ModelStore(store, NAME).latest() == ModelStore(store, NAME).versions()[0]
        if not was_killed:
            break
    assert count > 20


def _publish_in_child(folder: Path, store: str, count: int) -> bool:
    """Publishes in a fork that dies at the count-th operation on the store; tells whether it died."""
    child = os.fork()
    if child == 0:
        try:
            die_at(store, count)
            publish_blessed(folder, store)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_store_that_is_not_there_answers_at_once(store_uri: str) -> None:
    store = ModelStore(store_uri, NAME)
    assert (store.latest(), store.versions(), store.promotions()) == (None, [], [])
