"""What Redis does in one step for us (Lua). Each touches keys of one hash tag only, so a Cluster runs them too.

An error that a write meets is passed on as text: what could be read is not lost with it.
"""

import hashlib
from typing import Final


class Script:
    """A script and the digest that Redis knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def for_each(text: str, *, keys: int, arguments: int) -> Script:
    """Make a script that does the same for each of many: so many KEYS and ARGV after the other belong to one of them.

    It returns a list of what `text` returns, which must not be nil: there a list ends.
    """
    return Script(f"""
local function one(KEYS, ARGV){text}end
local all = {{}}
for at = 1, #KEYS / {keys} do
  all[at] = one({{unpack(KEYS, (at - 1) * {keys} + 1, at * {keys})}},
    {{unpack(ARGV, (at - 1) * {arguments} + 1, at * {arguments})}})
end
return all
""")


LOOK: Final = for_each(
    """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then return {value.err} end
return value and {value, redis.call('PTTL', KEYS[1])}
""",
    keys=1,
    arguments=0,
)
"""KEYS: the state. Returns nil, [value, milliseconds left], or [error] for a value of another type."""

CLAIM: Final = for_each(
    """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' and value ~= '' and (ARGV[1] == '' or string.sub(value, 1, #ARGV[1]) ~= ARGV[1]) then
  return {'landed', value, redis.call('PTTL', KEYS[1])}
end
local taken = redis.pcall('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3])
if type(taken) == 'table' then
  if taken.ok then return {'taken', type(value) == 'table' and 'other_type' or value == '' and 'version' or ''} end
  return {'refused', taken.err}
end
local held = redis.pcall('GET', KEYS[2])
if type(held) ~= 'string' then return {'odd'} end
if #held < tonumber(ARGV[5]) and not string.find(held, ARGV[4], 1, true) then
  redis.pcall('APPEND', KEYS[2], ARGV[4])
end
return {'held', held, redis.call('PTTL', KEYS[2])}
""",
    keys=2,
    arguments=5,
)
"""KEYS: state, lease. ARGV: how the value begins that will not do (empty: any will), the claim, its milliseconds, who
is to be woken instead, the most octets of a lease. Returns the value that landed, with the milliseconds left of it; or
taken, with what is wrong with a value that is no state; or who held the lease before; or odd, or refused."""

RENEW: Final = for_each(
    """
if redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[2] - 1) ~= ARGV[2] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
""",
    keys=1,
    arguments=2,
)
"""KEYS: the lease. ARGV: milliseconds, the claim. Returns 1 when it is in force."""

LAND: Final = for_each(
    """
local held = redis.pcall('GET', KEYS[2])
if type(held) ~= 'string' or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return {'lost'} end
local written
if ARGV[2] == 'keep' then written = {}
elseif ARGV[2] == 'drop' then written = redis.pcall('DEL', KEYS[1])
else written = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[2]) end
redis.pcall('DEL', KEYS[2])
for at = #ARGV[1] + 1, #held, tonumber(ARGV[5]) do
  redis.pcall('PUBLISH', ARGV[6] .. string.sub(held, at, at + ARGV[5] - 1), ARGV[4] .. ARGV[3])
end
if type(written) == 'table' and written.err then return {'refused', written.err} end
return {'landed'}
""",
    keys=2,
    arguments=6,
)
"""KEYS: state, lease. ARGV: the claim, milliseconds or keep or drop, the value, what stands before it in the message
for those who wait, the octets of each one's name, how their channels begin. A claim that is not in force changes
nothing."""

CHECK: Final = Script("""
local tag = redis.pcall('GET', KEYS[2])
if type(tag) ~= 'string' then tag = '' end
if #ARGV == 0 then return {tag, {}} end
local sealed = redis.pcall('HMGET', KEYS[1], unpack(ARGV))
if sealed.err then return {tag, {}, sealed.err} end
return {tag, sealed}
""")
"""KEYS: ledger, tag. ARGV: ids of marks. Returns the tag of the latest change and what lies under these ids."""

PUSH: Final = Script("""
local room = tonumber(ARGV[2])
local known = redis.pcall('HLEN', KEYS[1])
if type(known) == 'table' then
  if not string.find(known.err, 'WRONGTYPE', 1, true) then return {'refused', known.err} end
  redis.pcall('DEL', KEYS[1])
  known = 0
end
local full = 0
for at = 5, #ARGV, 2 do
  if known < room or redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then
    local written = redis.pcall('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    if type(written) == 'table' then return {'refused', written.err} end
    known = known + written
  else
    full = full + 1
  end
end
local former = redis.pcall('GET', KEYS[2])
if type(former) ~= 'string' then former = '' end
local written = redis.pcall('SET', KEYS[2], ARGV[1])
if type(written) == 'table' and written.err then return {'refused', written.err} end
redis.pcall('PUBLISH', ARGV[3], string.sub(former .. string.rep(' ', #ARGV[1]), 1, #ARGV[1]) .. ARGV[1] .. ARGV[4])
return {'pushed', full}
""")
"""KEYS: ledger, tag. ARGV: the new tag, the most marks, the channel, the message, then id and sealed mark by turns."""
