"""`cache.redis`: the shared tier, and what makes it one of ours."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr, WithJsonSchema

from fastgate.config.redis_url import FORMS, redis_url
from fastgate.config.units import PositiveDuration
from fastgate.config.words import FileName, Name, Secret, Section

SECRET_LENGTH: Final = 16
"""Characters that a secret must have at least."""
TIMEOUT_MAX: Final = 1.0
"""Seconds. Longer than this, a slow Redis would be a slow gateway."""


def _url(secret: SecretStr) -> SecretStr:
    redis_url(secret.get_secret_value())
    return secret


def _strong(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < SECRET_LENGTH:
        raise ValueError(f"must have at least {SECRET_LENGTH} characters; `openssl rand -hex 32` makes one")
    return secret


def _short(seconds: float) -> float:
    if seconds > TIMEOUT_MAX:
        raise ValueError("must be at most 1s: every request with a token that is not in memory may wait so long")
    return seconds


RedisUrlText = Annotated[SecretStr, AfterValidator(_url), WithJsonSchema({"type": "string", "x-kind": "URL, secret"})]
SealingSecret = Annotated[
    SecretStr,
    AfterValidator(_strong),
    WithJsonSchema({"type": "string", "minLength": SECRET_LENGTH, "x-kind": "secret"}),
]


class RedisTls(Section):
    """TLS towards Redis (and its Sentinels); with a URL that starts with `rediss`."""

    ca_file: Annotated[FileName | None, Field(description="Certificates (PEM) to trust instead of the system's.")] = (
        None
    )
    certificate: Annotated[FileName | None, Field(description="Our own certificate chain (PEM), where asked for.")] = (
        None
    )
    key: Annotated[FileName | None, Field(description="Its private key (PEM), not encrypted.")] = None
    verify: Annotated[bool, Field(description="Verify the server's certificate and host name.")] = True


class Redis(Section):
    """What is known of tokens and revocations, shared by all workers and hosts. Redis sees only sealed values."""

    url: Annotated[
        RedisUrlText,
        Field(
            description=f"Where it is: {FORMS}. `rediss` instead of `redis` is TLS in every form. "
            "`user:password@` may stand before the hosts, percent-encoded."
        ),
    ]
    username: Annotated[Secret | None, Field(description="ACL user, when it is not in the URL.")] = None
    password: Annotated[Secret | None, Field(description="Password, when it is not in the URL.")] = None
    sentinel_username: Annotated[Secret | None, Field(description="ACL user at the Sentinels themselves.")] = None
    sentinel_password: Annotated[Secret | None, Field(description="Password at the Sentinels themselves.")] = None
    secrets: Annotated[
        tuple[SealingSecret, ...],
        Field(
            max_length=8,
            description="What the keys are derived from that seal everything in Redis; the first one writes, the "
            "others still read. To change it: add the new one at the end everywhere, then move it to the front "
            "everywhere, then remove the old one. Left out: derived from the identity providers' client secrets.",
        ),
    ] = ()
    prefix: Annotated[Name, Field(description="How every key and channel begins.")] = "fastgate"
    timeout: Annotated[
        PositiveDuration,
        AfterValidator(_short),
        Field(
            description="How long one operation may take, 1s at most. One that takes longer is given up, and Redis is "
            "left alone until it answers again."
        ),
    ] = 0.04
    tls: Annotated[RedisTls, Field(description="TLS towards Redis.")] = RedisTls()
