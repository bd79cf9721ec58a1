"""The shared tier: what all workers and hosts know together, kept in Redis.

Rule: Redis may be slow, dead, empty or hostile. Every operation has a deadline, nothing in it is believed that was not
sealed by one of us for this very place, and no request fails that a cold memory would have served. Redis holds neither
tokens nor claims in the clear.
May import: what `tokens` may, and redis, aiocache, cryptography: loaded only where `cache.redis` is configured.
May not: be imported by anything else than `app`, `cli` and itself at run time.
"""
