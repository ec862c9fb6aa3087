"""A judged window reaches a real Pushgateway. Needs: the environment in which TFDV runs; prometheus-pushgateway."""

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import InputError
from tests.monitor_model.world import World, draw_rows
from tests.servers import environment, free_port


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish()
    made.months(draw_rows(1000, seed=2), draw_rows(1000, seed=3))
    return made


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("prometheus-pushgateway")
    if program is None:
        pytest.skip("no prometheus-pushgateway on this machine: Debian's package of that name has it")
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "gateway.log").open("wb") as log:
        process = subprocess.Popen([program, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with environment(no_proxy="127.0.0.1"):
            deadline = time.monotonic() + 60
            while not _has(f"http://{address}", ""):
                assert time.monotonic() < deadline, (tmp_path / "gateway.log").read_text()
                time.sleep(0.1)
            yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _has(url: str, text: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            return text in answer.read().decode()
    except OSError:
        return False


def test_the_newest_window_is_pushed_and_an_earlier_one_is_not(
    world: World, gateway: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = world.judge("2025-04", pushgateway=gateway)
    labels = f'instance="",job="lockgate-monitoring",metric="auc",model="shop",version="{world.version}"'
    told = f"lockgate_monitoring_info{{{labels},"
    assert _has(gateway, f'{told}window="{newest.window}"}} 1')
    assert _has(gateway, 'lockgate_monitoring_rows{instance="",job="lockgate-monitoring",model="shop"} 1000')
    earlier = world.judge("2025-03", pushgateway=gateway)
    assert f"{earlier.window} is not the newest window: its figures are not pushed" in capsys.readouterr().out
    assert _has(gateway, f'{told}window="{newest.window}"}} 1')


def test_a_pushgateway_that_is_not_there_changes_no_verdict(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = world.judge()
    with environment(no_proxy="127.0.0.1"):
        record = world.judge(pushgateway=f"http://127.0.0.1:{free_port()}")
    assert (record.verdict, record.evidence) == (quiet.verdict, quiet.evidence)
    assert "did not take the figures" in capsys.readouterr().err


def test_half_of_the_credentials_is_told_before_anything_is_judged(world: World) -> None:
    with (
        environment(LOCKGATE_PUSHGATEWAY_PASSWORD="sesame"),
        pytest.raises(InputError, match="LOCKGATE_PUSHGATEWAY_USERNAME is not"),
    ):
        world.judge(pushgateway="http://localhost:9091")
    assert not (world.folder / "models" / "monitoring").exists()
