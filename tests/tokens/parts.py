"""What the tests of this room are made of: a clock that stands still until told otherwise, values, a world."""

import asyncio
from dataclasses import replace

from fastgate.model import (
    Access,
    AccessPolicy,
    AccessToken,
    ActiveToken,
    Extraction,
    IdentityProvider,
    TokenSource,
)
from fastgate.policy.digest import token_key
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.resolver import Tokens
from fastgate.tokens.revocation import Revocations

NOW = 1_700_000_000


class FakeClock:
    """Wall and monotonic time; `pass_` moves both, as real time does, `jump` the wall clock only."""

    def __init__(self):
        self.wall = float(NOW)
        self.steady = 1000.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.steady

    def pass_(self, seconds):
        self.wall += seconds
        self.steady += seconds

    def jump(self, seconds):
        self.wall += seconds


def provider_at(idp, **changes):
    """Describe this identity provider with an explicit endpoint and patience for a busy machine."""
    plain = IdentityProvider(
        name="idp",
        issuer=None,
        introspection_endpoint=idp.endpoint,
        client_id="gateway",
        client_secret="s3cret-of-ours",
        timeout=20.0,
        digest_key=b"d" * 64,
    )
    return replace(plain, **changes)


def access_to(provider, **freshness):
    """Make what a route says: this provider, and optionally a freshness of its own."""
    return Access(
        provider=provider,
        policy=AccessPolicy(),
        extraction=Extraction(frozenset({TokenSource.HEADER})),
        freshness=replace(provider.freshness, **freshness),
    )


def bearer(value):
    return AccessToken(value, TokenSource.HEADER)


def active(**claims):
    """Make the state of an active token, as the decoder would."""
    return ActiveToken(claims, exp=claims.get("exp"), iat=claims.get("iat"))


def peek(tokens, access, token):
    """Look into the memory as the gate does before it asks."""
    entry = tokens.recall(token_key(access.provider, token.value), token)
    state = None if entry is None else tokens.fresh(access, entry, token)
    if entry is not None and state is not None:
        tokens.hits_of(entry)[0] += 1
    return state


class World:
    """Tokens with everything around them, for tests that need several configurations."""

    def __init__(self, clock, stats):
        self.clock = clock
        self.stats = stats
        self.memory = MemoryTier(1000, 100)
        self.revocations = Revocations(clock, ttl=86_400.0, max_entries=1000)
        self.tokens = None

    def of(self, *providers, fingerprint_key=None):
        named = {each.name: each for each in providers}
        self.tokens = Tokens(self.memory, named, self.clock, self.stats, self.revocations, fingerprint_key)
        return self.tokens

    async def get(self, access, value):
        """Do what the gate does: peek, else resolve."""
        state = peek(self.tokens, access, bearer(value))
        return await self.tokens.resolve(access, bearer(value)) if state is None else state


async def turns(count=5):
    """Let everything that can run now run, for a few turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)
