"""How the API of Kubeflow Pipelines is reached: by every way of connecting that its users have.

kfp.Client is not used: without a namespace in a file of its own it asks a host that refuses or is away five times, five
seconds apart, with a traceback each, and it goes on without a kubeconfig that it could not read.
"""

import logging
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from pipelines.kubeflow.api import Api, NotTheApiError
from pipelines.kubeflow.dex import log_in

PREFIX = "LOCKGATE_KFP_"
TOKEN, COOKIE, DEX_PASSWORD = PREFIX + "TOKEN", PREFIX + "COOKIE", PREFIX + "DEX_PASSWORD"
IAP_DESKTOP_ID, IAP_DESKTOP_SECRET = PREFIX + "IAP_DESKTOP_CLIENT_ID", PREFIX + "IAP_DESKTOP_CLIENT_SECRET"

_IN_CLUSTER = "http://ml-pipeline.{namespace}.svc.cluster.local:8888"
_IN_CLUSTER_PAGES = "http://ml-pipeline-ui.{namespace}.svc.cluster.local"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Where Kubeflow projects a token for the pipelines' API into pods; the variable is kfp's own.
_PIPELINES_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_PIPELINES_TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:|/|$)")


@dataclass(frozen=True)
class Connection:
    """Where the API is, and who asks. What is secret comes from files and the environment only."""

    host: str = ""
    """Empty: in a pod that cluster's own API, else through the Kubernetes API server of the kubeconfig."""
    namespace: str = ""
    """Of the runs; a single-user installation has none."""
    system_namespace: str = "kubeflow"
    """Where Kubeflow Pipelines is installed."""
    kube_context: str = ""
    token_file: Path | None = None
    cookie_file: Path | None = None
    dex_user: str = ""
    iap_client_id: str = ""
    ca_cert: Path | None = None


def connect(connection: Connection) -> Api:
    """Connects, and asks the API whether it is there.

    Raises:
        InputError: the options contradict each other, or the API refuses.
        UnavailableError: it does not answer.
    """
    configuration = _configuration()
    if connection.ca_cert:
        if not connection.ca_cert.is_file():
            raise InputError(f"--ca-cert: '{connection.ca_cert}' is no file")
        configuration.ssl_ca_cert = str(connection.ca_cert)
    server = ""
    if connection.host:
        configuration.host = normalized(connection.host)
        tried, ui = configuration.host, configuration.host
    elif (_SERVICE_ACCOUNT / "token").is_file():
        configuration.host = _IN_CLUSTER.format(namespace=connection.system_namespace)
        tried = f"{configuration.host} (this pod's cluster)"
        ui = _IN_CLUSTER_PAGES.format(namespace=connection.system_namespace)
    else:
        server = _from_kubeconfig(configuration, connection)
        services = f"{server}/api/v1/namespaces/{connection.system_namespace}/services"
        configuration.host = f"{services}/ml-pipeline:http/proxy"
        ui = f"{services}/ml-pipeline-ui:http/proxy"
        tried = f"namespace '{connection.system_namespace}' through the Kubernetes API server {server}"
    _set_proxy(configuration)
    cookie, renew = _log_in(configuration, connection)
    api = Api(configuration, tried, ui, server, connection.system_namespace, cookie=cookie, renew=renew)
    multi_user = _is_multi_user(api)
    api.namespace = connection.namespace or (_own_namespace() if multi_user else "")
    if multi_user and not api.namespace:
        raise InputError(
            f"{tried}: this Kubeflow has a namespace for each user; give yours by --namespace, or {PREFIX}NAMESPACE"
        )
    return api


def normalized(host: str) -> str:
    """Makes the URL of an API of what a user copies: with or without scheme, from the browser's address bar.

    Raises:
        InputError: it is no host.
    """
    url = host if "://" in host else f"{'http' if _LOCAL.match(host) else 'https'}://{host}"
    parts = urllib.parse.urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # the port
        valid = False
    if not valid or parts.username is not None:
        raise InputError(f"--host '{host}': not like http://localhost:8080 or https://kubeflow.example.com/pipeline")
    path = parts.path.partition("/apis/")[0].rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _configuration() -> Any:
    from kfp_server_api import Configuration
    from urllib3 import Retry

    # It would print each try.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    configuration = Configuration()
    # What was not sent is sent again; what was, only where that does nothing twice.
    configuration.retries = Retry(
        total=3,
        backoff_factor=0.3,
        status_forcelist=(429, 502, 503, 504),
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    return configuration


def _from_kubeconfig(configuration: Any, connection: Connection) -> str:
    """Takes server, certificates and credentials from the kubeconfig; gives the server."""
    from kubernetes import config

    wanted_ca = configuration.ssl_ca_cert
    name = os.environ.get("KUBECONFIG", "~/.kube/config")
    try:
        config.load_kube_config(name, connection.kube_context or None, configuration)
    except Exception as error:  # of many kinds: missing, not YAML, no such context, a plugin that fails
        reason = f"{error}" or type(error).__name__
        raise InputError(
            f"no way to Kubeflow Pipelines: no --host is given, this is no pod, and the kubeconfig '{name}' does not "
            f"do: {reason}; give --host, or a kubeconfig"
        ) from error
    configuration.ssl_ca_cert = wanted_ca or configuration.ssl_ca_cert
    renew = configuration.refresh_api_key_hook

    def renew_token(c: Any) -> None:
        # It sets everything again, itself and the host too, which leads to Kubeflow Pipelines by now.
        host, ca_cert = c.host, c.ssl_ca_cert
        renew(c)
        c.host, c.ssl_ca_cert, c.refresh_api_key_hook = host, ca_cert, renew_token

    if renew:
        configuration.refresh_api_key_hook = renew_token
    return str(configuration.host).rstrip("/")


def _set_proxy(configuration: Any) -> None:
    parts = urllib.parse.urlsplit(configuration.host)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        configuration.proxy = proxy


def _log_in(configuration: Any, connection: Connection) -> tuple[str, Callable[[], str] | None]:
    """Puts credentials into the configuration; gives the cookie to send, and what makes a new one."""
    ways = {
        "a token": connection.token_file or os.environ.get(TOKEN),
        "a cookie": connection.cookie_file or os.environ.get(COOKIE),
        "--dex-user": connection.dex_user,
        "--iap-client-id": connection.iap_client_id,
    }
    given = [way for way, value in ways.items() if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given; log in by one (options, or variables {PREFIX}…)")
    if given and not connection.host:
        raise InputError(f"{given[0]} is for a host; give --host too, or connect by the kubeconfig alone")
    if connection.dex_user:
        password = os.environ.get(DEX_PASSWORD)
        if not password:
            raise InputError(f"--dex-user {connection.dex_user}: put the password into the variable {DEX_PASSWORD}")

        def renew() -> str:
            return log_in(configuration.host, connection.dex_user, password, configuration.ssl_ca_cert)

        return renew(), renew
    if connection.cookie_file or os.environ.get(COOKIE):
        return (_secret(connection.cookie_file) if connection.cookie_file else os.environ[COOKIE]).strip(), None
    token_file = connection.token_file or (_pod_token() if not connection.host else None)
    if token_file:
        configuration.api_key["authorization"] = _secret(token_file)
        # Read again for each call: such tokens live for an hour, and whoever made the file renews it.
        configuration.refresh_api_key_hook = lambda c: c.api_key.update(authorization=_secret(token_file))
    elif os.environ.get(TOKEN):
        configuration.api_key["authorization"] = os.environ[TOKEN].strip()
    elif connection.iap_client_id:
        configuration.api_key["authorization"] = _iap_token(connection.iap_client_id)
    else:
        return "", None
    configuration.api_key_prefix["authorization"] = "Bearer"
    return "", None


def _pod_token() -> Path | None:
    path = Path(os.environ.get(_PIPELINES_TOKEN_VARIABLE, _PIPELINES_TOKEN))
    return path if (_SERVICE_ACCOUNT / "token").is_file() and path.is_file() else None


def _secret(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read: {error}; name the file that holds the token or cookie") from error
    if not text:
        raise InputError(f"'{path}' is empty; it must hold the token or cookie")
    return text


def _iap_token(client_id: str) -> str:
    from kfp.client import auth  # kfp takes a second to import

    try:
        token, _ = auth.get_auth_token(client_id, os.environ.get(IAP_DESKTOP_ID), os.environ.get(IAP_DESKTOP_SECRET))
    except Exception as error:  # google.auth's are of many kinds
        raise InputError(
            f"--iap-client-id: no token: {error}; set GOOGLE_APPLICATION_CREDENTIALS to a service account's key, or "
            f"{IAP_DESKTOP_ID} and {IAP_DESKTOP_SECRET} for a login in the browser"
        ) from error
    if not token:
        raise InputError(
            f"--iap-client-id: the credentials are a person's; set {IAP_DESKTOP_ID} and {IAP_DESKTOP_SECRET}, or "
            "GOOGLE_APPLICATION_CREDENTIALS to a service account's key"
        )
    return token


def _is_multi_user(api: Api) -> bool:
    """Asks the API how it is; where a Kubeflow's start page answers instead, the API is below /pipeline."""
    try:
        return bool(api.get("/apis/v2beta1/healthz").get("multi_user"))
    except NotTheApiError as error:
        if api.host.endswith("/pipeline"):
            raise
        api.host += "/pipeline"
        try:
            return bool(api.get("/apis/v2beta1/healthz").get("multi_user"))
        except NotTheApiError:
            raise error from None


def _own_namespace() -> str:
    file = _SERVICE_ACCOUNT / "namespace"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
