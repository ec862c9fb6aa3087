"""The report: one page that needs nothing else, whatever the data says."""

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa

from tests.validate_data.datasets import EVAL_ROWS, SCHEMA, TRAIN_ROWS, Place, good, replaced

HOSTILE = ["<script>alert(1)</script>", "a b'\"`", "a/b", "a.b", "{{ 7 * 7 }}", "日本 ü", "&amp;", "  "]


class Page(HTMLParser):
    """Collects tags and checks that they close."""

    _VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.headings: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-2:] == ["h3", "span"]:
            self.headings.append(data)


def test_the_page_is_self_contained_and_small(place: Place) -> None:
    place.write({"carrier": replaced(good(TRAIN_ROWS)["carrier"], "Bitcoin", 600)}).validate()
    text = place.report.read_text(encoding="utf-8")
    assert not {"script", "link", "img", "iframe"} & Page(text).tags
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(text) < 100_000
    assert "Bitcoin" in text


def test_hostile_names_and_values_are_text(place: Place) -> None:
    values = pa.array(["<img src=x onerror=alert(1)>", "</style>", "plain", ""])

    def columns(rows: int) -> dict[str, pa.Array]:
        return {name: values.take(pa.array(np.arange(rows) % 4)) for name in HOSTILE}

    schema = SCHEMA + "".join(
        'feature {{ name: "{}" type: BYTES string_domain {{ value: "plain" }} }}'.format(name.replace('"', '\\"'))
        for name in HOSTILE
    )
    result = place.write(columns(TRAIN_ROWS), columns(EVAL_ROWS)).validate(schema)
    assert result.verdict == "fail"
    assert {one["feature"] for one in place.anomalies()} == set(HOSTILE)
    page = Page(place.report.read_text(encoding="utf-8"))
    assert not {"script", "img"} & page.tags
    assert set(HOSTILE) <= set(page.headings)


def test_the_label_comes_first_then_the_columns_with_anomalies(place: Place) -> None:
    place.write({"wind": pa.array([1.0] * TRAIN_ROWS, pa.float32())}).validate()
    headings = Page(place.report.read_text(encoding="utf-8")).headings
    names = [one for one in headings if one in good(1)]
    assert names == ["late", "wind", "carrier", "distance", "hour"]


def test_times_are_dates_and_outliers_do_not_flatten_the_picture(place: Place) -> None:
    schema = SCHEMA + 'feature { name: "at" type: INT time_domain { integer_format: UNIX_SECONDS } }'
    distance = replaced(good(TRAIN_ROWS)["distance"], 1e30, 3)
    place.write(
        {"at": pa.array([1357016400] * TRAIN_ROWS), "distance": distance}, {"at": pa.array([2**62] * EVAL_ROWS)}
    )
    place.validate(schema)
    text = place.report.read_text(encoding="utf-8")
    assert "2013-01-01" in text
    assert "The outer bars also hold what lies beyond." in text


def test_a_thousand_columns_fit_on_the_page(place: Place) -> None:
    wide = {f"w{i}": pa.array([float(i), 1.0], pa.float32()) for i in range(300)}
    place.write_splits({"train": good(2) | wide, "eval": good(2) | wide}).validate(schema="")
    text = place.report.read_text(encoding="utf-8")
    assert "The first 150 of 305 columns" in text
    assert len(text) < 700_000
