"""The certificate of KServe's webhook, which cert-manager would make elsewhere."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipelines.kind.manifests import Object

SECRET = "kserve-webhook-server-cert"
NAMESPACE = "kserve"
HOST = f"kserve-webhook-server-service.{NAMESPACE}.svc"

_DAYS = 365
_RENEW_DAYS = 60


def secret(live: Object | None, now: datetime) -> Object:
    """Gives the Secret with the certificate: the one that is there, unless it ends soon or cannot be read."""
    if live is not None and _ends(live) > now + timedelta(days=_RENEW_DAYS):
        return {**_object(), "data": live["data"]}
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # the node's clock may be behind
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    data = {"tls.crt": public, "tls.key": private, "ca.crt": public}
    return {**_object(), "data": {name: base64.b64encode(value).decode() for name, value in data.items()}}


def trust(objects: list[Object], certificate: Object) -> None:
    """Writes the certificate's authority into the webhooks, so that the API server believes the controller."""
    for one in objects:
        if one["kind"].endswith("WebhookConfiguration"):
            for hook in one["webhooks"]:
                hook["clientConfig"]["caBundle"] = certificate["data"]["ca.crt"]


def _object() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
    }


def _ends(live: Object) -> datetime:
    """Tells until when a Secret's certificate holds; the past, if it is not one of ours."""
    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(live["data"]["ca.crt"]))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (KeyError, TypeError, ValueError, binascii.Error, x509.ExtensionNotFound):
        return datetime.min.replace(tzinfo=UTC)
    if HOST not in names.get_values_for_type(x509.DNSName) or not live["data"].get("tls.key"):
        return datetime.min.replace(tzinfo=UTC)
    return certificate.not_valid_after_utc
