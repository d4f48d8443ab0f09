"""Quotas in a real Redis; skipped where the client or the server is not there."""

import asyncio
import os
import socket
import uuid

import pytest

from app.admission.limits import Limits
from app.admission.quotas import Subject
from app.admission.redis_quotas import RedisQuotas
from app.errors import DependencyDown, QuotaExceeded

pytest.importorskip("redis")
URL = os.environ.get("TANDEM_TEST_REDIS", "redis://127.0.0.1:6379/15")


@pytest.fixture
def prefix():
    import redis

    client = redis.Redis.from_url(URL, socket_connect_timeout=2)
    try:
        client.ping()
    except redis.exceptions.RedisError as error:
        pytest.skip(f"no Redis at {URL}: {error}")
    name = f"tandem-test-{uuid.uuid4().hex}"
    yield name
    for key in client.scan_iter(f"{name}:*"):
        client.delete(key)
    client.close()


def key(**limits):
    return Subject("key", "k", "shop", Limits(**limits))


def run(prefix, scene, lease_s=60.0):
    async def whole():
        quotas = RedisQuotas(URL, lease_s=lease_s, prefix=prefix)
        try:
            return await scene(quotas)
        finally:
            await quotas.close()

    return asyncio.run(whole())


async def admitted(quotas, subjects, ticket):
    try:
        await quotas.admit(subjects, ticket)
    except QuotaExceeded:
        return False
    return True


def test_a_race_lets_in_no_more_than_the_limit(prefix):
    subject = key(requests_per_minute=20)

    async def scene(quotas):
        other = RedisQuotas(URL, lease_s=60, prefix=prefix)  # another process
        tries = [admitted((quotas, other)[n % 2], [subject], str(n)) for n in range(100)]
        done = await asyncio.gather(*tries)
        await other.close()
        return done

    assert sum(run(prefix, scene)) == 20


def test_tokens_days_and_concurrency(prefix):
    async def scene(quotas):
        one = key(concurrency=1)
        assert await admitted(quotas, [one], "a")
        assert not await admitted(quotas, [one], "b")
        await quotas.release([one], "a")
        assert await admitted(quotas, [one], "b")
        minute = key(tokens_per_minute=100)
        await quotas.charge([minute], 100)
        with pytest.raises(QuotaExceeded, match="tokens a minute") as refused:
            await quotas.admit([minute], "c")
        assert 55 <= refused.value.retry_after <= 61
        day = key(tokens_per_day=500)
        assert not await quotas.known_day(day)
        await quotas.start_day(day, 500)
        await quotas.start_day(day, 9999)
        assert await quotas.known_day(day)
        with pytest.raises(QuotaExceeded, match="500 tokens a day"):
            await quotas.admit([day], "d")
        assert await admitted(quotas, [key(tokens_per_day=501)], "e")

    run(prefix, scene)


def test_a_script_sent_twice_is_not_in_its_own_way(prefix):
    subject = key(concurrency=1, requests_per_minute=1)

    async def scene(quotas):
        return [await admitted(quotas, [subject], ticket) for ticket in ("a", "a", "b")]

    assert run(prefix, scene) == [True, True, False]


def test_refusal_of_the_second_subject_counts_for_neither(prefix):
    async def scene(quotas):
        loose = key(requests_per_minute=2)
        strict = Subject("workspace", "w", "acme", Limits(requests_per_minute=1))
        assert await admitted(quotas, [loose, strict], "a")
        for number in range(5):
            assert not await admitted(quotas, [loose, strict], f"b{number}")
        assert await admitted(quotas, [loose], "c")

    run(prefix, scene)


def test_requests_of_a_killed_process_stop_counting_when_their_lease_ends(prefix):
    async def scene(quotas):
        one = key(concurrency=1)
        killed = RedisQuotas(URL, lease_s=0.1, prefix=prefix)
        assert await admitted(killed, [one], "killed")
        await killed.close()  # its renewals end with it, nothing is released
        await asyncio.sleep(0.3)
        return await admitted(quotas, [one], "next")

    assert run(prefix, scene, lease_s=0.1)


def test_an_answer_longer_than_its_lease_keeps_counting_until_it_ends(prefix):
    one = key(concurrency=1)

    async def scene(quotas):
        other = RedisQuotas(URL, lease_s=0.3, prefix=prefix)  # another process
        assert await admitted(quotas, [one], "long")
        await asyncio.sleep(1.0)
        while_running = await admitted(other, [one], "next")
        await quotas.release([one], "long")
        await asyncio.sleep(0.3)  # a renewal under way does not bring it back
        after = await admitted(other, [one], "next")
        await other.close()
        return while_running, after, quotas._held

    assert run(prefix, scene, lease_s=0.3) == (False, True, {})


def test_renewing_outlives_a_redis_that_is_away_for_a_moment(prefix):
    one = key(concurrency=1)

    async def scene(quotas):
        renew, failed = quotas._renew, []

        async def away(**_):
            raise OSError("connection refused")

        def first_fails(**given):
            if failed:
                return renew(**given)
            failed.append(True)
            return away()

        quotas._renew = first_fails
        assert await admitted(quotas, [one], "long")
        await asyncio.sleep(1.2)
        return failed, await admitted(quotas, [one], "next")

    assert run(prefix, scene, lease_s=0.6) == ([True], False)


def test_redis_that_never_answers_is_a_503():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        quotas = RedisQuotas(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", lease_s=60)

        async def scene():
            try:
                await quotas.admit([key(concurrency=1)], "a")
            finally:
                await quotas.close()

        with pytest.raises(DependencyDown, match="Redis does not answer"):
            asyncio.run(scene())
