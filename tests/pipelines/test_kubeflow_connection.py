"""Every way to the API, and what is said when one does not lead there. Needs: the authoring environment."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import InputError, UnavailableError
from pipelines.kubeflow import connection
from pipelines.kubeflow.connection import Connection, connect, normalized
from tests.pipelines.kubeflow_server import Kubeflow, serving
from tests.servers import free_port


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("LOCKGATE_KFP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as started:
        yield started


def kubeconfig(server: str) -> str:
    return (
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], "
        f"clusters: [{{name: k, cluster: {{server: '{server}'}}}}], users: [{{name: u, user: {{token: t}}}}]}}"
    )


def test_a_host_is_enough(kubeflow: Kubeflow) -> None:
    assert connect(Connection(kubeflow.url)).get("/apis/v2beta1/runs") == {"runs": [], "total_size": 0}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8888/", "http://127.0.0.1:8888"),
        ("kubeflow.example.com", "https://kubeflow.example.com"),
        ("https://kubeflow.example.com/pipeline/", "https://kubeflow.example.com/pipeline"),
        ("http://localhost:8080/#/runs/details/1", "http://localhost:8080"),
        ("http://localhost:8888/apis/v2beta1/healthz", "http://localhost:8888"),
    ],
)
def test_a_host_is_taken_as_it_is_copied(given: str, url: str) -> None:
    assert normalized(given) == url


@pytest.mark.parametrize("given", ["ftp://x", "http://", "http://x:port", "https://user:password@x", "http://x:99999"])
def test_what_is_no_host_is_told_of(given: str) -> None:
    with pytest.raises(InputError, match="--host"):
        normalized(given)


def test_a_kubeflow_behind_its_start_page_is_found_below_it() -> None:
    with serving(Kubeflow(below="/pipeline")) as kubeflow:
        api = connect(Connection(kubeflow.url))
        assert api.host == f"{kubeflow.url}/pipeline" == api.ui


def test_something_else_is_told_of() -> None:
    with serving(Kubeflow(below="/elsewhere")) as kubeflow, pytest.raises(InputError, match="a page for browsers"):
        connect(Connection(kubeflow.url))


def test_a_token_comes_from_a_file_and_is_read_again(kubeflow: Kubeflow, tmp_path: Path) -> None:
    kubeflow.token = "one"
    file = tmp_path / "token"
    file.write_text("one\n")
    api = connect(Connection(kubeflow.url, token_file=file))
    kubeflow.token = "two"
    file.write_text("two\n")
    assert api.get("/apis/v2beta1/runs")["total_size"] == 0


def test_a_token_comes_from_the_environment(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow.token = "one"
    monkeypatch.setenv(connection.TOKEN, "one")
    connect(Connection(kubeflow.url))


def test_a_cookie_comes_from_a_file_or_the_environment(
    kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.cookie = "authservice_session=abc"
    (tmp_path / "cookie").write_text("authservice_session=abc")
    connect(Connection(kubeflow.url, cookie_file=tmp_path / "cookie"))
    monkeypatch.setenv(connection.COOKIE, "authservice_session=abc")
    connect(Connection(kubeflow.url))


@pytest.mark.parametrize("shows_login", [False, True])
def test_dex_lets_in_by_name_and_password(monkeypatch: pytest.MonkeyPatch, shows_login: bool) -> None:
    monkeypatch.setenv(connection.DEX_PASSWORD, "secret")
    behaviour = Kubeflow(cookie="oauth2_proxy=abc", dex=("user@example.com", "secret"), shows_login=shows_login)
    with serving(behaviour) as kubeflow:
        api = connect(Connection(kubeflow.url, dex_user="user@example.com"))
        kubeflow.cookie = "oauth2_proxy=new"  # the old one has run out
        assert api.get("/apis/v2beta1/runs")["total_size"] == 0


def test_dex_refuses_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.DEX_PASSWORD, "wrong")
    with (
        serving(Kubeflow(cookie="oauth2_proxy=abc", dex=("user@example.com", "secret"))) as kubeflow,
        pytest.raises(InputError, match=r"does not accept the name 'user@example\.com'") as error,
    ):
        connect(Connection(kubeflow.url, dex_user="user@example.com"))
    assert "wrong" not in str(error.value)


def test_a_host_without_dex_is_told_of(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.DEX_PASSWORD, "secret")
    with pytest.raises(InputError, match="is there a Dex"):
        connect(Connection(kubeflow.url, dex_user="user@example.com"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dex_user": "a"}, "LOCKGATE_KFP_DEX_PASSWORD"),
        ({"dex_user": "a", "iap_client_id": "b"}, "--dex-user and --iap-client-id are given"),
        ({"token_file": Path("/nowhere")}, "'/nowhere' cannot be read"),
        ({"ca_cert": Path("/nowhere")}, "--ca-cert: '/nowhere' is no file"),
        ({"host": "", "token_file": Path("/nowhere")}, "give --host too"),
    ],
)
def test_options_that_make_no_sense(given: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text(kubeconfig("http://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(InputError) as error:
        connect(Connection(**{"host": "http://127.0.0.1:1", **given}))
    assert said in str(error.value)


def test_an_empty_token_file_is_told_of(kubeflow: Kubeflow, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        connect(Connection(kubeflow.url, token_file=tmp_path / "token"))


def test_who_is_refused_is_told_of_the_ways_to_log_in(kubeflow: Kubeflow) -> None:
    kubeflow.token = "one"
    with pytest.raises(InputError, match=r"refuses \(401\): .*user identity.* ways to log in"):
        connect(Connection(kubeflow.url))


def test_a_host_that_is_away_is_told_of() -> None:
    with pytest.raises(UnavailableError, match=r"does not answer: .*port-forward"):
        connect(Connection(f"http://127.0.0.1:{free_port()}"))


def test_no_way_at_all_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no --host is given, this is no pod, and the kubeconfig .*none.* does not do"
    ):
        connect(Connection())


def test_the_kubeconfig_leads_through_the_kubernetes_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Kubeflow(below="/api/v1/namespaces/kf/services/ml-pipeline:http/proxy", token="t")) as kubeflow:
        config = tmp_path / "config"
        config.write_text(kubeconfig(kubeflow.url))
        monkeypatch.setenv("KUBECONFIG", str(config))
        api = connect(Connection(system_namespace="kf"))
        assert api.get("/apis/v2beta1/runs")["total_size"] == 0
        assert api.ui.endswith("/services/ml-pipeline-ui:http/proxy")
        with pytest.raises(InputError, match="no-such"):
            connect(Connection(kube_context="no-such"))


def test_in_a_pod_its_own_cluster_is_asked_with_the_projected_token(
    kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("for Kubernetes")
    (tmp_path / "namespace").write_text("team-a")
    (tmp_path / "pipelines").write_text("projected")
    monkeypatch.setattr(connection, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "pipelines"))
    monkeypatch.setattr(connection, "_IN_CLUSTER", kubeflow.url)
    kubeflow.token, kubeflow.multi_user = "projected", True
    api = connect(Connection())
    assert api.namespace == "team-a"


def test_users_with_namespaces_must_say_theirs() -> None:
    with serving(Kubeflow(multi_user=True)) as kubeflow:
        with pytest.raises(InputError, match="--namespace"):
            connect(Connection(kubeflow.url))
        api = connect(Connection(kubeflow.url, namespace="team-a"))
        list(api.everything("/apis/v2beta1/runs", "runs"))
        assert kubeflow.seen("GET", "namespace=team-a") == 1


def test_a_short_absence_is_bridged(kubeflow: Kubeflow) -> None:
    api = connect(Connection(kubeflow.url))
    kubeflow.broken = [503, 502]
    assert api.get("/apis/v2beta1/runs")["total_size"] == 0


def test_nothing_is_started_twice_by_an_answer_that_is_lost(kubeflow: Kubeflow) -> None:
    api = connect(Connection(kubeflow.url))
    kubeflow.broken = [503]
    with pytest.raises(UnavailableError, match="answers 503"):
        api.post("/apis/v2beta1/runs", {"display_name": "one"})
    assert kubeflow.seen("POST", "/runs") == 1
