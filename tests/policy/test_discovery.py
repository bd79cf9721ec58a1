import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.errors import Cannot, IntrospectionError
from fastgate.policy.discovery import MAX_METADATA, Metadata, decode, metadata_urls

ISSUER = "https://idp.test/realms/x"
ENDPOINT = "https://idp.test/introspect"


def document(**changes):
    members = {"issuer": ISSUER, "introspection_endpoint": ENDPOINT, **changes}
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def refused(body):
    with pytest.raises(IntrospectionError) as caught:
        decode(ISSUER, body)
    assert caught.value.kind is Cannot.MALFORMED
    return caught.value.detail


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://idp.test",
            (
                "https://idp.test/.well-known/openid-configuration",
                "https://idp.test/.well-known/oauth-authorization-server",
            ),
        ),
        (
            "https://idp.test/",
            (
                "https://idp.test/.well-known/openid-configuration",
                "https://idp.test/.well-known/oauth-authorization-server",
            ),
        ),
        (
            "http://127.0.0.1:8080/realms/x",
            (
                "http://127.0.0.1:8080/realms/x/.well-known/openid-configuration",
                "http://127.0.0.1:8080/.well-known/oauth-authorization-server/realms/x",
            ),
        ),
    ],
)
def test_where_metadata_are(issuer, urls):
    """N29: appended for OpenID Connect, inserted for RFC 8414."""
    assert metadata_urls(issuer) == urls


def test_a_document():
    """N29: the endpoint, and the methods it offers."""
    methods = ["client_secret_post", "private_key_jwt"]
    assert decode(ISSUER, document(introspection_endpoint_auth_methods_supported=methods)) == Metadata(
        ENDPOINT, ("client_secret_post", "private_key_jwt")
    )


def test_a_document_without_methods():
    """N29: nothing stated is nothing offered or excluded."""
    assert decode(ISSUER, document()) == Metadata(ENDPOINT, ())


@pytest.mark.parametrize(
    "issuer",
    [ISSUER + "/", ISSUER.upper(), "https://idp.test:443/realms/x", "https://evil.test", None, [ISSUER], ...],
)
def test_another_issuer(issuer):
    """N29, T8: not the configured one, code point by code point: unusable."""
    assert "issuer" in refused(document(issuer=issuer))


@pytest.mark.parametrize(
    "endpoint",
    [
        1,
        "",
        "/introspect",
        "ftp://idp.test/x",
        "https://",
        "https://idp.test/#x",
        "https://idp.test:x/",
        "https://idp.test:0/",
        "https://idp.test:99999/",
        "https://[::1/",
        "https://idp.test/a b",
        "https://idp.test/a\r\nX: y",
        "https://idp.test/a\nb",
        "https://idp.tést/",
    ],
)
def test_no_usable_endpoint(endpoint):
    """N29, T20: unusable, not guessed."""
    assert "introspection_endpoint" in refused(document(introspection_endpoint=endpoint))


@pytest.mark.parametrize("endpoint", [..., None])
def test_no_endpoint_at_all(endpoint):
    """N29: not stated; whoever configured one needs none here."""
    assert decode(ISSUER, document(introspection_endpoint=endpoint)).introspection_endpoint == ""


def test_where_the_keys_are():
    """N29: as stated, for what the issuer signs."""
    assert decode(ISSUER, document(jwks_uri="https://idp.test/keys")).jwks_uri == "https://idp.test/keys"


@pytest.mark.parametrize("uri", [..., None, 5, "", "/keys", "file:///keys", "https://idp.test/a b"])
def test_no_usable_address_of_keys(uri):
    """N29: as if it was not stated; introspection does not depend on it."""
    assert decode(ISSUER, document(jwks_uri=uri)).jwks_uri is None


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080/x", "https://[::1]/x", "https://other.test/x?y=z"])
def test_an_endpoint_somewhere_else(endpoint):
    """N29: it may be anywhere; whether http is allowed is decided where it is asked."""
    assert decode(ISSUER, document(introspection_endpoint=endpoint)).introspection_endpoint == endpoint


@pytest.mark.parametrize("methods", ["client_secret_basic", None, [1], {"a": "b"}])
def test_methods_that_are_no_list_of_names(methods):
    """N29: unusable."""
    assert "auth_methods" in refused(document(introspection_endpoint_auth_methods_supported=methods))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", document() + b"x", document(x="x" * MAX_METADATA)])
def test_not_a_document(body):
    """N27, T20: unusable, bounded."""
    refused(body)


def test_a_document_of_usual_size():
    """N27: larger than an introspection answer may be."""
    assert decode(ISSUER, document(scopes_supported=["scope"] * 10_000)).introspection_endpoint == ENDPOINT


@given(
    body=st.binary(max_size=30)
    | st.dictionaries(st.sampled_from(["issuer", "x"]), st.text()).map(json.dumps).map(str.encode)
)
def test_any_document(body):
    """T20: unusable, never a crash."""
    refused(body)
