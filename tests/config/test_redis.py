"""`cache.redis`: where the shared tier is, and what makes what lies there ours."""

import ssl

import pytest
import trustme

from fastgate.config.advice import advice
from fastgate.config.redis_url import RedisUrl, redis_url

from .conftest import ENVIRON, PROVIDER, SERVICE, VALID

LONG = "0123456789abcdef"


def redis(text):
    return f"{VALID}cache:\n  redis: {text}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("redis://127.0.0.1:6379/0", RedisUrl("server", addresses=(("127.0.0.1", 6379),))),
        ("redis://CACHE.example", RedisUrl("server", addresses=(("cache.example", 6379),))),
        ("redis://[::1]:7000/3", RedisUrl("server", addresses=(("::1", 7000),), database=3)),
        ("redis://[::1]", RedisUrl("server", addresses=(("::1", 6379),))),
        ("rediss://h:1", RedisUrl("server", tls=True, addresses=(("h", 1),))),
        (
            "redis://us%40r:p%3Aw%2F@h",
            RedisUrl("server", addresses=(("h", 6379),), username="us@r", password="p:w/"),
        ),
        ("redis://:pw@h", RedisUrl("server", addresses=(("h", 6379),), password="pw")),
        ("unix:///run/redis.sock", RedisUrl("unix", path="/run/redis.sock")),
        (
            "unix://u:p@/run/redis.sock?db=2",
            RedisUrl("unix", path="/run/redis.sock", database=2, username="u", password="p"),
        ),
        (
            "redis+sentinel://a,b:1/my.master/2",
            RedisUrl("sentinel", addresses=(("a", 26379), ("b", 1)), master="my.master", database=2),
        ),
        ("rediss+sentinel://a/m", RedisUrl("sentinel", tls=True, addresses=(("a", 26379),), master="m")),
        ("redis+cluster://a,b:1/", RedisUrl("cluster", addresses=(("a", 6379), ("b", 1)))),
        (
            "rediss+cluster://u:p@a/0",
            RedisUrl("cluster", tls=True, addresses=(("a", 6379),), username="u", password="p"),
        ),
    ],
)
def test_the_forms_of_the_url(text, said):
    """T37: a server, a unix socket, Sentinels and a Cluster, with TLS and ACL users."""
    assert redis_url(text) == said


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://h", "must be one of redis://"),
        ("redis:h", "must be one of redis://"),
        ("redis+replica://h", "must be one of redis://"),
        ("redis://h\u00e9", "printable ASCII"),
        ("redis://h h", "printable ASCII"),
        ("redis://", "name a host"),
        ("redis://a,b", "name one host"),
        ("redis+cluster://a,,b", "name a host"),
        ("redis://h:0", "port 0"),
        ("redis://h:99999", "port from 0 to 65535"),
        ("redis://-h-", "no valid host name"),
        ("redis://::1", "square brackets"),
        ("redis://h/x", "number of a database"),
        ("redis://h/0/1", "number of a database"),
        ("redis://h?db=1", "query"),
        ("redis://h#1", "#"),
        ("redis://user@h", "user:password@"),
        ("redis://u:p:q@h", "%3A"),
        ("redis://u:p@q@h", "%40"),
        ("redis+sentinel://a", "name the master"),
        ("redis+sentinel://a/0x/y/z", "number of a database"),
        ("redis+cluster://a/1", "only database 0"),
        ("unix://run/redis.sock", "whole path"),
        ("unix:///", "whole path"),
        ("unix:///run/redis.sock?timeout=1", "?db=NUMBER"),
    ],
)
def test_what_is_no_url(text, complaint):
    """P6: said with what to write instead, never with what was written."""
    with pytest.raises(ValueError, match=r"must|has no") as caught:
        redis_url(text)
    assert complaint in str(caught.value)


def test_what_is_compiled(snapshot):
    """T37: everything that is written, and defaults."""
    text = (
        "{url: 'redis://h:1/2', username: u, password: '${SECRET}', secrets: [one, two], prefix: gate, timeout: 20ms}"
    )
    compiled = snapshot(redis(text.replace("one", LONG).replace("two", LONG + "x"))).settings.redis
    assert (compiled.kind, compiled.addresses, compiled.database) == ("server", (("h", 1),), 2)
    assert (compiled.username, compiled.password) == ("u", ENVIRON["SECRET"])
    assert (compiled.prefix, compiled.timeout, compiled.tls) == ("gate", 0.02, None)
    assert compiled.secrets == (LONG, LONG + "x")
    plain = snapshot(redis("{url: 'redis://u:p@h'}")).settings.redis
    assert (plain.username, plain.password, plain.prefix, plain.timeout) == ("u", "p", "fastgate", 0.04)
    assert snapshot(VALID).settings.redis is None


def test_without_secrets_of_its_own(snapshot):
    """N26: keys come from the client secrets, in the order of the names, the same on every host."""
    two = PROVIDER + "  a: {issuer: 'https://a.example', client_id: b, client_secret: other}\n"
    two += "  none: {issuer: 'https://n.example', client_id: b, client_auth: none}\n"
    text = two + SERVICE + "        auth: {identity_provider: a}\ncache: {redis: {url: 'redis://h'}}\n"
    assert snapshot(text).settings.redis.secrets == ("a\0other", "idp\0" + ENVIRON["SECRET"])


def test_a_changed_secret_needs_no_restart(snapshot):
    """P5: what differs only in its secrets is the same Redis."""
    one, two, other = (
        snapshot(redis(f"{{url: '{url}', secrets: [{secret}]}}")).settings.redis
        for url, secret in (("redis://h", LONG), ("redis://h", LONG[::-1]), ("redis://i", LONG))
    )
    assert one == two != other


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("redis://h", "cache.redis", "must be a mapping"),
        ("{}", "cache.redis.url", "is missing"),
        ("{url: 5}", "cache.redis.url", "must be text"),
        ("{url: 'http://h'}", "cache.redis.url", "must be one of redis://"),
        ("{url: 'redis://h', secret: x}", "cache.redis.secret", "did you mean `secrets`?"),
        ("{url: 'redis://h', secrets: [short]}", "cache.redis.secrets[0]", "at least 16 characters"),
        ("{url: 'redis://h', timeout: 2s}", "cache.redis.timeout", "at most 1s"),
        ("{url: 'redis://h', timeout: 0}", "cache.redis.timeout", "longer than 0"),
        ("{url: 'redis://h', prefix: 'a b'}", "cache.redis.prefix", "letters, digits"),
        ("{url: 'redis://:p@h', password: x}", "cache.redis.password", "is in `url` already"),
        ("{url: 'redis://u:p@h', username: x}", "cache.redis.username", "is in `url` already"),
        ("{url: 'redis://h', username: x}", "cache.redis.password", "is missing"),
        ("{url: 'redis://h', sentinel_password: x}", "cache.redis.sentinel_password", "redis+sentinel://"),
        ("{url: 'redis://h', tls: {verify: true}}", "cache.redis.tls", "starts with rediss"),
        ("{url: 'rediss://h', tls: {key: x}}", "cache.redis.tls.certificate", "go together"),
        ("{url: 'rediss://h', tls: {certificate: x}}", "cache.redis.tls.key", "go together"),
        ("{url: 'rediss://h', tls: {verify: false, ca_file: x}}", "cache.redis.tls.ca_file", "has no use"),
        ("{url: 'rediss://h', tls: {ca_file: nowhere.pem}}", "cache.redis.tls.ca_file", "cannot be read"),
    ],
)
def test_what_is_wrong_with_it(problems, text, path, said):
    """P6: at its place in the file, with what to do."""
    (problem,) = [problem for problem in problems(redis(text)) if path in problem.split(": ")[0].split(" ")[1]][:1]
    assert problem.startswith(f"9 {path}: ")
    assert said in problem


def test_nothing_to_derive_keys_from(problems):
    """N26: neither secrets nor a client secret."""
    text = VALID.replace('client_secret: "${SECRET}"', "client_auth: none") + "cache: {redis: {url: 'redis://h'}}\n"
    (problem,) = problems(text)
    assert problem.startswith("8 cache.redis.secrets: is missing, and no identity provider has a `client_secret`")


def test_tls_with_a_certificate_of_our_own(snapshot, tmp_path, problems):
    """T21: verified against ca_file alone; a certificate without its key is said at once."""
    ca = trustme.CA()
    leaf = ca.issue_cert("gateway.test")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    tls = "tls: {ca_file: ca.pem, certificate: both.pem, key: both.pem}"
    made = snapshot(redis(f"{{url: 'rediss://h', {tls}}}")).settings.redis
    assert made.tls.verify_mode is ssl.CERT_REQUIRED
    assert made.tls.check_hostname
    assert len(made.tls.get_ca_certs()) == 1
    (problem,) = problems(redis(f"{{url: 'rediss://h', {tls.replace('key: both.pem', 'key: ca.pem')}}}"))
    assert problem.startswith("9 cache.redis.tls.key: names a file that holds no private key")
    open_ = snapshot(redis("{url: 'rediss://h', tls: {verify: false}}")).settings.redis
    assert open_.tls.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{url: 'redis://:p@cache.example', secrets: [0123456789abcdef]}", "cache.redis.url"),
        ("{url: 'rediss://h', secrets: [0123456789abcdef], tls: {verify: false}}", "cache.redis.tls.verify"),
        ("{url: 'redis://127.0.0.1'}", "cache.redis"),
    ],
)
def test_what_should_be_a_decision(load_text, text, path):
    """T21: allowed, and said."""
    assert [problem.path for problem in advice(load_text(redis(text)))] == [path]


def test_nothing_to_say(load_text):
    """A password to this machine, secrets of its own."""
    assert advice(load_text(redis("{url: 'redis://:p@127.0.0.1', secrets: [0123456789abcdef]}"))) == []
