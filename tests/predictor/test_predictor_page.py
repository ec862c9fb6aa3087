"""The page to try a request by hand, in a real browser. Needs: Chromium."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.predictor import running
from tests.predictor.browser import PROGRAM, Page, opened
from tests.predictor.running import RunningServer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on PATH; Debian: apt-get install chromium")

ROW = {"amount": 123.5, "trip km": 7.25, "visits": 3, "colour": "red"}


def browse(url: str, visit: Callable[[Page], Awaitable[None]], complaints: int = 0) -> None:
    async def go() -> None:
        async with opened(url) as page:
            await page.until("document.querySelector('#answer')?.textContent")  # of the example that it sends itself
            await visit(page)
            assert len(page.complaints) == complaints, page.complaints

    asyncio.run(go())


async def send(page: Page, row: dict[str, Any]) -> None:
    """Fills in the form, and asks for the prediction."""
    await page.evaluate("document.querySelector('#answer').replaceChildren()")
    for name, value in row.items():
        await page.evaluate(f"document.forms[0].elements[{json.dumps(name)}].value = {json.dumps(value)}")
    await page.evaluate("document.querySelector('button[type=submit]').click()")
    await page.until("document.querySelector('#answer').textContent")


async def answer(page: Page) -> dict[str, str]:
    """What the page shows of a prediction, by its heading."""
    shown: dict[str, str] = await page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#answer dt')]"
        ".map((heading) => [heading.textContent, heading.nextSibling.textContent]))"
    )
    return shown


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "anomaly_detection", "clustering"])
def test_a_row_is_predicted_and_explained(models: Path, kind: str) -> None:
    async def visit(page: Page) -> None:
        await send(page, ROW)
        shown = await answer(page)
        assert shown.pop("answered in").endswith(" ms")
        wanted = [one for value in prediction.values() for one in (value if isinstance(value, list) else [value])]
        for text, value in zip(shown.values(), wanted, strict=True):
            assert text == value or float(text) == pytest.approx(value, rel=1e-3)
        await page.until("document.querySelector('#why table')")
        contributions = await page.evaluate(
            "[...document.querySelectorAll('#why tbody .number')]"
            ".map((cell) => Number(cell.textContent.replace('−', '-')))"
        )
        assert sum(contributions[:-1]) == pytest.approx(contributions[-1], rel=1e-2)
        command = await page.evaluate("document.querySelector('#request').textContent")
        assert json.loads(command.partition(" -d '")[2].removesuffix("'")) == {"instances": [ROW]}

    with running.serving(models / kind) as server:
        prediction = server.rows([ROW]).json()["predictions"][0]
        browse(server.url, visit)


def test_a_value_that_is_refused_is_shown_as_the_server_says_it(server: RunningServer) -> None:
    async def visit(page: Page) -> None:
        await send(page, {**ROW, "visits": "<b>many</b>"})
        assert await page.evaluate("document.querySelector('#answer').textContent") == refusal
        assert await page.evaluate("document.querySelector('#answer b')") is None
        await send(page, ROW)
        assert await answer(page)

    refusal = server.rows([{**ROW, "visits": "<b>many</b>"}]).json()["error"]
    browse(server.url, visit, complaints=1)  # Chromium writes each 400 to the console


def test_a_server_that_is_gone_is_said(models: Path) -> None:
    async def visit(page: Page) -> None:
        await send(page, ROW)
        server.stop()
        await send(page, ROW)
        assert await page.evaluate("document.querySelector('#answer.bad').textContent") == "no answer: Failed to fetch"

    with running.serving(models / "binary") as server:
        browse(server.url, visit, complaints=1)
