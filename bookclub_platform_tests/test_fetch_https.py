"""The same care over TLS: the certificate is the name's, though the connection goes to the checked address."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bookclub_platform.core.errors import ShopUnavailable
from bookclub_platform.sources import Fetcher, Patience
from bookclub_platform_tests.misbehaving_shop import BODY, Misbehaving, open_shop

x509 = pytest.importorskip("cryptography.x509")


def certificate(folder: Path, name: str) -> Path:
    """A file with a key and a certificate of its own for `name`."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    is_address = name.replace(".", "").isdecimal()
    of = x509.IPAddress(ipaddress.ip_address(name)) if is_address else x509.DNSName(name)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([of]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def shop() -> Iterator[Misbehaving]:
    with open_shop() as server:
        yield server


def speaks_tls(shop: Misbehaving, pem: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """-> the shop's address by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    shop.socket = context.wrap_socket(shop.socket, server_side=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    return f"https://localhost:{shop.server_address[1]}"


def test_a_page_comes_over_https(shop: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = speaks_tls(shop, certificate(tmp_path, "localhost"), monkeypatch)
    with Fetcher(delay_s=0, concurrency=2, shops=[address]) as fetcher:
        assert fetcher.fetch(f"{address}/a", "book").body == BODY


def test_a_certificate_of_the_address_alone_is_not_the_names(
    shop: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = speaks_tls(shop, certificate(tmp_path, "127.0.0.1"), monkeypatch)
    patience = Patience(backoff_base_s=0.01)
    with (
        Fetcher(delay_s=0, concurrency=2, patience=patience) as fetcher,
        pytest.raises(ShopUnavailable, match="certificate"),
    ):
        fetcher.fetch(f"{address}/a", "book")
    assert not shop.visits
