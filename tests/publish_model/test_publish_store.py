"""The store: cards, differences, production and rolling back."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InputError
from components.model_card import to_markdown
from components.model_store import ModelStore, _promotion
from tests.publish_model.blessed import CONFIG, NAME, bless, publish_blessed


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with three versions."""
    folder = tmp_path_factory.mktemp("three")
    uri = str(folder / "store")
    store = ModelStore(uri, NAME)
    for index, (weights, auc) in enumerate((("a", 0.70), ("b", 0.71), ("c", 0.72))):
        config = {**CONFIG, "pipeline": {**CONFIG["pipeline"], "training": {"epochs": index, "seed": 1}}}  # type: ignore[dict-item]
        latest = store.latest()
        parent = store.uri_of(latest) if latest else ""
        spans = tuple(f"2025-0{month + 1}" for month in range(index + 2))
        run = bless(folder / weights, weights, auc, spans)
        publish_blessed(run, uri, config=config, production_model=parent)
    return uri


@pytest.fixture
def store(three: str, tmp_path: Path) -> ModelStore:
    """A copy of the store with three versions."""
    shutil.copytree(three, tmp_path / "store")
    return ModelStore(str(tmp_path / "store"), NAME)


def test_a_card_says_where_the_model_comes_from(store: ModelStore) -> None:
    first, second, _ = store.cards()
    assert first.parent is None
    assert second.parent == first.version
    assert second.data.spans == ["2025-01", "2025-02", "2025-03"]
    assert second.data.splits == {"train": 80, "eval": 20}
    assert second.data.source == "data/visits-{YYYY}-{MM}.csv"
    assert second.code.locks == {"base": "10c4"}
    assert (second.code.registry, second.code.image_tag) == ("registry.example/team", "0.1.0-c0de")
    assert second.code.details == {"digest": "c0de"}
    assert "| Images | registry.example/team, tag 0.1.0-c0de |" in to_markdown(second)
    assert second.evaluation.metrics == {"auc": 0.71, "recall": None}
    assert second.evaluation.intervals == {"auc": (0.70, 0.72)}
    assert (second.owner, second.description) == ("shop team", "Who buys?")
    assert "| `auc` | 0.71 | 0.7 to 0.72 |" in to_markdown(second)
    beside = Path(store.uri_of(second.version), "card.json")
    assert json.loads(beside.read_text()) == second.model_dump(mode="json")


def test_the_same_model_is_not_published_twice(store: ModelStore, tmp_path: Path) -> None:
    again = publish_blessed(bless(tmp_path / "again", "b", auc=0.69), store.uri)
    assert (again.version, again.new) == (store.versions()[1], False)
    assert len(store.versions()) == 3
    assert store.latest() == store.versions()[2]


def test_a_difference_is_named_topic_by_topic(store: ModelStore) -> None:
    found = {(change.topic, change.key): (change.before, change.after) for change in store.diff("1", "latest")}
    assert found[("metrics", "auc")] == (0.70, 0.72)
    assert found[("config", "training.epochs")] == (0, 2)
    assert found[("data", "spans")] == ("2025-01, 2025-02", "2025-01, 2025-02, 2025-03, 2025-04")
    assert found[("slices", "city=Oslo auc")] == (0.70, 0.72)
    assert ("config", "training.seed") not in found
    assert ("code", "digest") not in found
    assert store.diff("2", "v0002") == []


def test_rolling_back_twice_goes_back_two(store: ModelStore) -> None:
    first, second, third = store.versions()
    assert store.latest() == third
    assert [store.rollback().version, store.rollback().version] == [second, first]
    assert store.latest() == first
    with pytest.raises(InputError, match="nothing was before"):
        store.rollback()
    assert store.rollback("3").version == third
    assert len(store.promotions()) == 6


def test_a_model_that_was_rolled_back_stays_so_when_its_run_is_repeated(store: ModelStore, tmp_path: Path) -> None:
    back = store.rollback().version
    assert not publish_blessed(bless(tmp_path / "again", "c"), store.uri).new
    assert store.latest() == back


def test_promoting_puts_an_old_version_in_front(store: ModelStore) -> None:
    first, _, third = store.versions()
    assert store.promote("v0001").version == first
    assert store.latest() == first
    assert store.rollback().version == third


@pytest.mark.parametrize("version", ["4", "v0009", "0", "", "v0001-00000000", "../v0001", "newest"])
def test_an_unknown_version_is_refused(store: ModelStore, version: str) -> None:
    with pytest.raises(InputError, match="has no version"):
        store.card(version)


def test_a_retired_version_has_a_card_and_no_files(store: ModelStore, tmp_path: Path) -> None:
    first, second, third = store.versions()
    retirement = store.retire("1")
    assert retirement.version == first
    assert not Path(store.uri_of(first)).exists()
    assert store.retired() == {first: retirement}
    assert store.retire(first) == retirement
    assert [card.version for card in store.cards()] == [first, second, third]
    for refused in (store.promote, store.rollback, lambda version: store.download(version, tmp_path / "copy")):
        with pytest.raises(InputError, match=f"{first} was retired on .*, and its files are gone"):
            refused(first)
    assert store.latest() == third
    assert [promotion.version for promotion in store.promotions()] == [first, second, third]


@pytest.mark.parametrize(("number", "says"), [(3, "is in production"), (2, "was in production before v0003")])
def test_production_and_what_was_before_it_stay(number: int, says: str, store: ModelStore) -> None:
    with pytest.raises(InputError, match=says):
        store.retire(str(number))
    assert Path(store.uri_of(store.card(str(number)).version)).is_dir()
    assert not store.retired()


def test_a_model_that_was_retired_is_published_anew(store: ModelStore, tmp_path: Path) -> None:
    store.retire("1")
    again = publish_blessed(bless(tmp_path / "a", "a", 0.70, ("2025-01", "2025-02")), store.uri)
    assert again.new
    assert again.version.startswith("v0004-")


def test_what_a_killed_retirement_left_is_removed_by_the_next_publisher(store: ModelStore, tmp_path: Path) -> None:
    first = store.versions()[0]
    shutil.copytree(store.uri_of(first), tmp_path / "kept")
    store.retire(first)
    shutil.copytree(tmp_path / "kept", store.uri_of(first))
    publish_blessed(bless(tmp_path / "d", "d", 0.73, ("2025-01",)), store.uri)
    assert not Path(store.uri_of(first)).exists()


def test_a_promotion_beside_a_retirement_loses_no_model(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody elsewhere promotes the version between the first look at the promotions and the retirement's entry."""
    first = store.versions()[0]
    put = ModelStore._put

    def promote_first(self: ModelStore, path: str, content: bytes) -> None:
        monkeypatch.undo()
        store._append_if(lambda _: _promotion(first, "promote"))
        put(self, path, content)

    monkeypatch.setattr(ModelStore, "_put", promote_first)
    with pytest.raises(InputError, match="is in production, and stays"):
        store.retire(first)
    assert Path(store.uri_of(first)).is_dir()
    assert not store.retired()
    assert store.latest() == first


def test_a_damaged_file_is_found_by_downloading(store: ModelStore, tmp_path: Path) -> None:
    Path(store.uri_of(store.versions()[0]), "model", "1", "saved_model.pb").write_bytes(b"other")
    with pytest.raises(InputError, match=r"saved_model.pb' is damaged"):
        store.download("1", tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))
    assert not list(tmp_path.glob(".*partial"))


def test_a_damaged_card_or_promotion_is_named(store: ModelStore) -> None:
    Path(store.uri, NAME, "versions", "v0002.json").write_text("{}")
    Path(store.uri, NAME, "promotions", "000003.json").write_text("")
    with pytest.raises(InputError, match=r"v0002.json' is damaged"):
        store.cards()
    with pytest.raises(InputError, match=r"000003.json' is damaged"):
        store.latest()


def test_a_deleted_promotion_does_not_hold_up_the_next(store: ModelStore) -> None:
    Path(store.uri, NAME, "promotions", "000001.json").unlink()
    store.promote("1")
    assert store.latest() == store.versions()[0]


@given(st.lists(st.sampled_from(["1", "2", "3", "back"]), max_size=8))
def test_production_is_what_was_asked_for_last(three: str, actions: list[str]) -> None:
    """Rolling back undoes the last promotion that put another version in front."""
    from components.model_store import _promotion, _succession

    versions = dict(zip("123", ModelStore(three, NAME).versions(), strict=True))
    log, stack = [_promotion(versions["1"], "publish")], [versions["1"]]
    for action in actions:
        if action != "back":
            log.append(_promotion(versions[action], "promote"))
            stack += [versions[action]] if stack[-1] != versions[action] else []
        elif len(stack) > 1:
            stack.pop()
            log.append(_promotion(_succession(log)[-2], "rollback"))
        assert _succession(log) == stack
        assert log[-1].version == stack[-1]
