"""A configuration that another process takes over, and what belongs to it without being in the file."""

import orjson
import pytest
import trustme

from fastgate.config.certificates import certificates
from fastgate.config.compile import compile_snapshot
from fastgate.config.handing import handed, taken
from fastgate.config.load import load

FILE = """\
listen: [{address: "127.0.0.1:0", tls: {certificate: both.pem, key: both.pem}}, "127.0.0.1:1"]
identity_providers:
  idp: {introspection_endpoint: "https://idp.invalid/i", client_id: a, client_secret: "${SECRET}", ca_file: ca.pem}
services:
  - {name: a, url: "https://127.0.0.1:9", tls: {ca_file: ca.pem}, routes: [{paths: ["/a"]}, {paths: ["~/x/[0-9]+"]}]}
"""
ENVIRON = {"SECRET": "s3cret ${not} a reference"}


@pytest.fixture
def file(tmp_path):
    ca = trustme.CA()
    (tmp_path / "both.pem").write_bytes(ca.issue_cert("a.test").private_key_and_cert_chain_pem.bytes())
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    path = tmp_path / "fastgate.yaml"
    path.write_text(FILE)
    return path


def test_there_and_back(file):
    """The same version, the same settings, the same secrets, without the file or the environment."""
    config = load(str(file), ENVIRON)
    values = orjson.loads(orjson.dumps(handed(config)))
    file.unlink()
    again = taken(values)
    assert again.version == config.version
    assert again.root == config.root
    first, second = compile_snapshot(config), compile_snapshot(again)
    assert second.settings.limits == first.settings.limits
    assert second.providers == first.providers
    assert second.providers["idp"].client_secret == ENVIRON["SECRET"]
    assert [route.match for route in second.routes] == [route.match for route in first.routes]
    assert "s3cret" not in repr(again) + repr(config)


@pytest.mark.parametrize("name", ["both.pem", "ca.pem"])
def test_certificates_belong_to_it(file, name):
    """Another content is another configuration, also when the file that names it is the same."""
    config = load(str(file), ENVIRON)
    before = certificates(config)
    assert certificates(load(str(file), ENVIRON)) == before
    with (file.parent / name).open("ab") as stream:
        stream.write(b"\n")
    changed = certificates(config)
    assert changed != before
    (file.parent / name).unlink()
    assert certificates(config) not in {before, changed}
