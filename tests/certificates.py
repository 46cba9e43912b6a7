"""TLS for tests: a certificate authority and a certificate for 127.0.0.1, made on first use."""

import datetime as dt
import functools
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ANCIENT = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
DISTANT = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
_Public = ec.EllipticCurvePublicKey
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def server_tls() -> ssl.SSLContext:
    """For a server on 127.0.0.1."""
    chain, _ = _made()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "server.pem"
        path.write_bytes(chain)
        context.load_cert_chain(path)
    return context


def written(directory: Path) -> tuple[Path, Path]:
    """Files for a server on 127.0.0.1 and those who call it: its key and certificate, and the
    authority.
    """
    chain, authority = directory / "server.pem", directory / "authority.pem"
    for path, content in zip((chain, authority), _made(), strict=True):
        path.touch(0o600)
        path.write_bytes(content)
    return chain, authority


def client_tls() -> ssl.SSLContext:
    """Trusts the test authority alone."""
    _, authority = _made()
    return ssl.create_default_context(cadata=authority.decode())


@functools.cache
def _made() -> tuple[bytes, bytes]:
    """PEM of the server's key and certificate, and of the authority's certificate."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    signer = authority_key.public_key()
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    authority = (
        _builder(authority_name, authority_name, signer, signer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    server = (
        _builder(name, authority_name, server_key.public_key(), signer)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key = server_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = serialization.Encoding.PEM
    return key + server.public_bytes(pem), authority.public_bytes(pem)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Public, signer: _Public
) -> x509.CertificateBuilder:
    """With both key identifiers, which strict verification (Python 3.13's default) asks for."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(ANCIENT)
        .not_valid_after(DISTANT)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )
