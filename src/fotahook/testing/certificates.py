"""Certificates for tests and demos, from a new authority whose key is not kept."""

from pathlib import Path

import msgspec


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the authority for clients to trust, and the server's certificate and key."""

    ca_file: Path
    cert_file: Path
    key_file: Path


def make_certificates(folder: Path, *hosts: str) -> Certificates:
    """Create a certificate for host names and addresses, and its authority's, as files in a folder."""
    try:
        import trustme
    except ModuleNotFoundError as error:
        raise ImportError(f"certificates need {error.name}: pip install 'fotahook[testing]'") from error
    authority = trustme.CA()
    issued = authority.issue_cert(*hosts)
    made = Certificates(ca_file=folder / "ca.pem", cert_file=folder / "server.pem", key_file=folder / "server-key.pem")
    made.key_file.touch(mode=0o600)
    authority.cert_pem.write_to_path(made.ca_file)
    issued.private_key_pem.write_to_path(made.key_file)
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(made.cert_file, append=index > 0)
    return made
