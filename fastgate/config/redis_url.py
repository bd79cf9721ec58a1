"""Where the shared tier lives, in one URL: a server, a unix socket, Sentinels, or the nodes of a Cluster."""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from fastgate.config.addresses import HostPort, host_port

FORMS: Final = (
    "redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///run/redis.sock?db=0, "
    "redis+sentinel://host:26379,host:26379/master/0 or redis+cluster://host:6379,host:6379"
)
_TEXT: Final = re.compile(r"[!-~]+")
_SCHEMES: Final = re.compile(r"(redis|rediss)(?:\+(sentinel|cluster))?|unix")
_DATABASE: Final = re.compile(r"[0-9]{1,5}")
_MASTER: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PORTS: Final = {"server": 6379, "sentinel": 26379, "cluster": 6379}


class RedisUrl(NamedTuple):
    """What a URL says. `kind` is server, unix, sentinel or cluster."""

    kind: str
    tls: bool = False
    addresses: tuple[HostPort, ...] = ()
    """Of the server, the Sentinels, or some nodes of the Cluster."""
    path: str = ""
    """Of a unix socket."""
    master: str = ""
    """The name that Sentinels know the servers by."""
    database: int = 0
    username: str | None = None
    password: str | None = None


def redis_url(text: str) -> RedisUrl:
    """Read a URL. Raises ValueError; no message repeats what was written, it may hold a password."""
    if not _TEXT.fullmatch(text):
        raise ValueError("must be a URL of printable ASCII characters without spaces")
    scheme, colon, rest = text.partition("://")
    match = _SCHEMES.fullmatch(scheme)
    if match is None or not colon:
        raise ValueError(f"must be one of {FORMS}")
    if "#" in rest:
        raise ValueError("must not hold a #; write %23 for one in a password")
    authority, slash, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    username, password = _userinfo(userinfo) if at else (None, None)
    if match[1] is None:
        found = _unix(hosts, slash + path)
    else:
        if "?" in rest:
            raise ValueError("must not hold a query (?); write %3F for one in a password")
        found = _network(match[1] == "rediss", match[2] or "server", hosts, path)
    return found._replace(username=username, password=password)


def _userinfo(text: str) -> tuple[str | None, str | None]:
    username, colon, password = text.partition(":")
    if not colon:
        raise ValueError("must hold user:password@ or :password@ before its host, or nothing there")
    if "@" in password or ":" in password:
        raise ValueError("must have %40 for an @ and %3A for a : in its user name and password")
    return unquote(username) or None, unquote(password) or None


def _unix(hosts: str, rest: str) -> RedisUrl:
    path, mark, query = rest.partition("?")
    name, _, value = query.partition("=")
    if hosts or len(path) < 2:  # noqa: PLR2004 - "/" and a name
        raise ValueError("must name a unix socket by its whole path, such as unix:///run/redis/redis.sock")
    if mark and (name != "db" or not _DATABASE.fullmatch(value)):
        raise ValueError("must hold no query but ?db=NUMBER")
    return RedisUrl("unix", path=unquote(path), database=int(value or 0))


def _network(tls: bool, kind: str, hosts: str, path: str) -> RedisUrl:  # noqa: FBT001 - what the scheme says
    written = hosts.split(",")
    if kind == "server" and len(written) > 1:
        raise ValueError("must name one host; several are for redis+sentinel:// and redis+cluster://")
    addresses = tuple(_address(each, _PORTS[kind]) for each in written)
    master = ""
    if kind == "sentinel":
        master, _, path = path.partition("/")
        if not _MASTER.fullmatch(master):
            raise ValueError("must name the master after its hosts, such as redis+sentinel://host:26379/mymaster")
    if path and not _DATABASE.fullmatch(path):
        raise ValueError("must end in the number of a database, such as /0, or without a path")
    if kind == "cluster" and int(path or 0):
        raise ValueError("must not name a database: a Cluster has only database 0")
    return RedisUrl(kind, tls, addresses, master=master, database=int(path or 0))


def _address(text: str, port: int) -> HostPort:
    if not text:
        raise ValueError("must name a host")
    has_port = re.search(r":[0-9]+\Z", text) is not None and (not text.startswith("[") or "]:" in text)
    found = host_port(text if has_port else f"{text}:{port}")
    if not found.port:
        raise ValueError("must not name port 0")
    return found
