"""An authority of our own and certificates that it signs, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

_DAY = datetime.timedelta(days=1)


@attrs.frozen
class Authority:
    """Signs certificates for 127.0.0.1 and localhost.

    Attributes:
        folder: Where files go.
        ca: PEM file of the authority itself.
    """

    folder: Path
    ca: Path
    _key: ec.EllipticCurvePrivateKey
    _certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Make one, valid from yesterday to tomorrow."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("authority of a test")
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        ca = folder / "ca.pem"
        ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, ca, key, certificate)

    def certify(self, name: str) -> tuple[Path, Path, int]:
        """Return the files of a certificate and its key, and its serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _builder(_name(name), self._certificate.subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file, certificate.serial_number

    def client_context(self) -> ssl.SSLContext:
        """Return what a client trusts: this authority alone."""
        return ssl.create_default_context(cafile=str(self.ca))


def serial_of(der: bytes | None) -> int:
    """Return the serial number of the certificate that a server showed."""
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.fromtimestamp(SystemClock().now(), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )
