"""Quotas shared by several processes through Redis; needs the `redis` package.

One Lua script checks all subjects of a request and counts it, so no race lets one more in. Time is
the server's own clock. Not for a Redis cluster: a request's keys may lie on several nodes there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from app.admission.quotas import Subject, refused, until_tomorrow
from app.errors import DependencyDown

log = structlog.get_logger(__name__)

_TIMEOUT_S = 1.0
_DAY_S = 2 * 86_400

# KEYS: per subject requests, tokens, day, running. ARGV: ticket, lease in s, then per subject the
# limits of concurrency, requests a minute, tokens a minute, tokens a day (-1: none).
_ADMIT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local ticket, lease = ARGV[1], tonumber(ARGV[2])
for i = 0, #KEYS / 4 - 1 do
  local requests, tokens, day, running = KEYS[4*i+1], KEYS[4*i+2], KEYS[4*i+3], KEYS[4*i+4]
  local at = 3 + 4 * i
  local most = tonumber(ARGV[at])
  -- The client sends the script again where its reply was lost: a ticket never stands in its way.
  redis.call('ZREM', running, ticket)
  redis.call('ZREM', requests, ticket)
  redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
  if most >= 0 and redis.call('ZCARD', running) >= most then return {i, 0, '1'} end
  most = tonumber(ARGV[at+1])
  redis.call('ZREMRANGEBYSCORE', requests, '-inf', now - 60)
  if most >= 0 and redis.call('ZCARD', requests) >= most then
    local first = redis.call('ZRANGE', requests, -most, -most, 'WITHSCORES')
    return {i, 1, tostring(tonumber(first[2]) + 60 - now)}
  end
  most = tonumber(ARGV[at+2])
  if most >= 0 then
    local sum, oldest, buckets = 0, now, redis.call('HGETALL', tokens)
    for j = 1, #buckets, 2 do
      local second = tonumber(buckets[j])
      if second <= now - 60 then redis.call('HDEL', tokens, buckets[j])
      else sum = sum + tonumber(buckets[j+1]); oldest = math.min(oldest, second) end
    end
    if sum >= most then return {i, 2, tostring(oldest + 61 - now)} end
  end
  most = tonumber(ARGV[at+3])
  if most >= 0 and tonumber(redis.call('GET', day) or '0') >= most then return {i, 3, '0'} end
end
for i = 0, #KEYS / 4 - 1 do
  redis.call('ZADD', KEYS[4*i+1], now, ticket)
  redis.call('EXPIRE', KEYS[4*i+1], 61)
  redis.call('ZADD', KEYS[4*i+4], now + lease, ticket)
  redis.call('EXPIRE', KEYS[4*i+4], math.ceil(lease) + 1)
end
return {-1, 0, '0'}
"""
_CHARGE = """
local second = redis.call('TIME')[1]
for i = 0, #KEYS / 2 - 1 do
  redis.call('HINCRBY', KEYS[2*i+1], second, ARGV[1])
  redis.call('EXPIRE', KEYS[2*i+1], 62)
  redis.call('INCRBY', KEYS[2*i+2], ARGV[1])
  redis.call('EXPIRE', KEYS[2*i+2], ARGV[2])
end
"""
_START_DAY = """
if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[2]) then
  if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  end
end
"""
# KEYS: running, once per ticket and subject. ARGV: lease in s, then the ticket of each key. Only
# what still counts as running is renewed: a release that overtakes this is not taken back.
_RENEW = """
local time = redis.call('TIME')
local till = tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1])
for i, running in ipairs(KEYS) do
  redis.call('ZADD', running, 'XX', till, ARGV[i + 1])
  redis.call('EXPIRE', running, math.ceil(tonumber(ARGV[1])) + 1)
end
"""
_RENEWALS_PER_LEASE = 3
_WHAT = ("requests at the same time", "requests a minute", "tokens a minute", "tokens a day")


class RedisQuotas:
    """Quotas of all processes that share one Redis."""

    def __init__(self, url: str, *, lease_s: float, prefix: str = "tandem:quota") -> None:
        """Nothing is connected yet.

        Args:
            url: as `redis://host:port/database`.
            lease_s: after how many seconds a request of a killed process stops counting as running;
                those of a living one are renewed for as long as they run.
            prefix: what all keys begin with.
        """
        try:
            import redis.asyncio as redis
            from redis.exceptions import RedisError
        except ImportError as error:
            raise DependencyDown(
                "quotas in Redis need the redis package: `pip install redis`, or unset "
                "TANDEM_REDIS_URL"
            ) from error
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError)
        self._redis = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        self._admit = self._redis.register_script(_ADMIT)
        self._charge = self._redis.register_script(_CHARGE)
        self._start_day = self._redis.register_script(_START_DAY)
        self._renew = self._redis.register_script(_RENEW)
        self._lease_s = lease_s
        self._prefix = prefix
        self._held: dict[str, tuple[Subject, ...]] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def admit(self, subjects: Sequence[Subject], ticket: str) -> None:
        """Count a request as running; QuotaExceeded where a subject may not ask now."""
        keys = [self._key(s, part) for s in subjects for part in ("r", "t", self._day(), "c")]
        arguments: list[Any] = [ticket, self._lease_s]
        for subject in subjects:
            limits = subject.limits
            arguments += [
                -1 if most is None else most
                for most in (
                    limits.concurrency,
                    limits.requests_per_minute,
                    limits.tokens_per_minute,
                    limits.tokens_per_day,
                )
            ]
        index, which, wait = await self._try(self._admit(keys=keys, args=arguments))
        if index < 0:
            self._hold(subjects, ticket)
            return
        subject = subjects[index]
        most = arguments[2 + 4 * index + which]
        seconds = until_tomorrow(datetime.now(UTC)) if which == 3 else float(wait)
        raise refused(subject, _WHAT[which], most, seconds)

    async def charge(self, subjects: Sequence[Subject], tokens: int) -> None:
        """Count tokens that were used."""
        keys = [self._key(s, part) for s in subjects for part in ("t", self._day())]
        await self._try(self._charge(keys=keys, args=[tokens, _DAY_S]))

    async def release(self, subjects: Sequence[Subject], ticket: str) -> None:
        """The request runs no more."""
        self._held.pop(ticket, None)
        for subject in subjects:
            await self._try(self._redis.zrem(self._key(subject, "c"), ticket))

    async def known_day(self, subject: Subject) -> bool:
        """Whether this day's count of the subject includes what was used before it began."""
        return bool(await self._try(self._redis.exists(self._key(subject, f"{self._day()}:known"))))

    async def start_day(self, subject: Subject, tokens: int) -> None:
        """Raise this day's count to what has been used by now, once a day."""
        keys = [self._key(subject, part) for part in (f"{self._day()}:known", self._day())]
        await self._try(self._start_day(keys=keys, args=[tokens, _DAY_S]))

    async def close(self) -> None:
        """Close all connections; what still runs counts until its lease ends."""
        if self._renewing is not None:
            self._renewing.cancel()
        await self._redis.aclose()

    def _hold(self, subjects: Sequence[Subject], ticket: str) -> None:
        self._held[ticket] = tuple(subjects)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_held())

    async def _renew_held(self) -> None:
        """Renew every lease a few times before it ends, until no request runs."""
        while self._held:
            await asyncio.sleep(self._lease_s / _RENEWALS_PER_LEASE)
            pairs = [(s, ticket) for ticket, subjects in self._held.items() for s in subjects]
            keys = [self._key(subject, "c") for subject, _ in pairs]
            tickets = [ticket for _, ticket in pairs]
            if not keys:
                continue
            try:
                await self._try(self._renew(keys=keys, args=[self._lease_s, *tickets]))
            except DependencyDown as error:  # asked again soon; until then the lease runs on
                log.warning("leases_not_renewed", reason=error.detail)

    async def _try(self, reply: Any) -> Any:
        try:
            return await reply
        except self._errors as error:
            raise DependencyDown(f"Redis does not answer: {error}") from error

    def _key(self, subject: Subject, part: str) -> str:
        return f"{self._prefix}:{subject.kind}:{subject.id}:{part}"

    @staticmethod
    def _day() -> str:
        return datetime.now(UTC).date().isoformat()
