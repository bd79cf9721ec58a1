"""What goes wrong with Redis, in a few words of ours; redis-py's exceptions end here, and so does what Redis said."""

import ssl
from enum import StrEnum
from typing import Final

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from fastgate.errors import FastgateError


class Fault(StrEnum):
    """Why an operation failed. The value is the metric label."""

    BYPASSED = "bypassed"
    """Nothing was tried: Redis is out of reach, or too much is under way."""
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    AUTH = "auth"
    """Our user or password was refused."""
    LOADING = "loading"
    CLUSTER = "cluster"
    """No Cluster, no master, or slots that nobody serves."""
    PROTOCOL = "protocol"
    """Not a Redis, or a client library that broke."""
    READ_ONLY = "read_only"
    PERMISSION = "permission"
    OUT_OF_MEMORY = "out_of_memory"
    REFUSED = "refused"
    """Any other error that Redis answered with."""


BREAKING: Final = frozenset(
    {Fault.TIMEOUT, Fault.CONNECTION, Fault.TLS, Fault.AUTH, Fault.LOADING, Fault.CLUSTER, Fault.PROTOCOL}
)
"""After one of these Redis is left alone until it answers again."""

UNWRITABLE: Final = frozenset({Fault.READ_ONLY, Fault.PERMISSION, Fault.OUT_OF_MEMORY})
"""After one of these nothing is written until a small write has succeeded."""

ADVICE: Final = {
    Fault.BYPASSED: "it is out of reach",
    Fault.TIMEOUT: "is it overloaded, stopped, or far away? `cache.redis.timeout` says how long one operation may take",
    Fault.CONNECTION: "is it running, and reachable from here?",
    Fault.TLS: "does it speak TLS on this port, with a certificate that `cache.redis.tls` trusts?",
    Fault.AUTH: "it refuses our user name or password",
    Fault.LOADING: "it is loading its data; this passes",
    Fault.CLUSTER: "nobody serves every key: is a failover under way, and is the URL of the right kind?",
    Fault.PROTOCOL: "is this a Redis, and of the kind that the URL says?",
    Fault.READ_ONLY: "it is a replica: nothing is shared until it is the master, or the URL names the master",
    Fault.PERMISSION: "its ACL lacks a command, key pattern or channel pattern for our user",
    Fault.OUT_OF_MEMORY: "it is full: raise its maxmemory, or choose a maxmemory-policy that evicts",
    Fault.REFUSED: "it refuses to do what it is asked; see its log",
}

_TYPES: Final = (
    (exceptions.NoPermissionError, Fault.PERMISSION),
    (exceptions.ReadOnlyError, Fault.READ_ONLY),
    (exceptions.OutOfMemoryError, Fault.OUT_OF_MEMORY),
    (exceptions.BusyLoadingError, Fault.LOADING),
    (exceptions.AuthorizationError, Fault.PERMISSION),
    ((exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError), Fault.AUTH),
    (exceptions.MaxConnectionsError, Fault.BYPASSED),
    ((MasterNotFoundError, exceptions.ClusterError, exceptions.RedisClusterException), Fault.CLUSTER),
    ((exceptions.AskError, exceptions.TryAgainError), Fault.CLUSTER),
    ((exceptions.TimeoutError, TimeoutError), Fault.TIMEOUT),
    (ssl.SSLError, Fault.TLS),
    ((exceptions.ConnectionError, OSError), Fault.CONNECTION),
    (exceptions.InvalidResponse, Fault.PROTOCOL),
    (exceptions.ResponseError, Fault.REFUSED),
)
_WORDS: Final = (
    ("NOAUTH", Fault.AUTH),
    ("WRONGPASS", Fault.AUTH),
    ("NOPERM", Fault.PERMISSION),
    ("ACL failure", Fault.PERMISSION),
    ("READONLY", Fault.READ_ONLY),
    ("OOM", Fault.OUT_OF_MEMORY),
    ("LOADING", Fault.LOADING),
    ("MASTERDOWN", Fault.CLUSTER),
    ("CLUSTERDOWN", Fault.CLUSTER),
)
"""How errors begin that redis-py has no type for, or that a script passes on as text."""


class RedisError(FastgateError):
    """An operation failed. The message says why in our own words."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault}: {ADVICE[fault]}")
        self.fault = fault


def fault_of(error: BaseException) -> Fault:
    """Classify what redis-py, or the system under it, raised."""
    told = error
    # redis-py wraps what made a connection fail.
    while isinstance(told, exceptions.ConnectionError) and isinstance(told.__cause__, OSError):
        told = told.__cause__
    if isinstance(told, exceptions.ResponseError | exceptions.ConnectionError):
        fault = fault_of_text(str(told))
        if fault is not Fault.REFUSED:
            return fault
    for kinds, fault in _TYPES:
        if isinstance(told, kinds):
            return fault
    return Fault.PROTOCOL


def fault_of_text(text: str) -> Fault:
    """Classify an error as Redis words it."""
    for word, fault in _WORDS:
        if text.startswith(word):
            return fault
    return Fault.REFUSED
