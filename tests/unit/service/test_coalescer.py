"""The coalescer under thousands of random schedules: order, exactly one answer, bounds, fairness, no lost wake-up."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.coalescer import Coalescer, OverloadedError

CALLS, LIMIT, BATCH = 2, 24, 8


class CallFailed(Exception):
    pass


class Replica:
    """Calls wait here until the schedule answers them."""

    def __init__(self):
        self.open = []
        self.batches = []
        self.cancelled = 0
        self.busiest = {}

    async def send(self, model, params, items, tags):
        assert 1 <= len(items) <= BATCH
        assert {item[1] for item in items} == {params}, "a batch mixes parameters"
        assert {item[0] for item in items} == {model}, "a batch mixes models"
        reply = asyncio.get_running_loop().create_future()
        call = (model, items, reply)
        self.open.append(call)
        self.batches.append((model, params, len(items)))
        assert set(tags) == {f"caller of {item[2] // 1000}" for item in items}
        in_flight = sum(1 for other in self.open if other[0] == model)
        self.busiest[model] = max(self.busiest.get(model, 0), in_flight)
        try:
            return await reply
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open.remove(call)

    def answer(self, index, *, fail=False):
        _, items, reply = self.open[index % len(self.open)]
        if not reply.done():
            if fail:
                reply.set_exception(CallFailed())
            else:
                reply.set_result([("answered", item) for item in items])


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


class Player:
    """Plays a schedule and checks what every waiter got."""

    def __init__(self):
        self.replica = Replica()
        self.coalescer = Coalescer(self.replica.send, queue_limit=LIMIT)
        self.waiters = []
        self.refused = 0
        self.next_item = 0

    def submit(self, model, params, count, *, replicas=1, calls_in_flight=CALLS):
        items = [(model, params, self.next_item + i) for i in range(count)]
        tag = f"caller of {self.next_item // 1000}"
        self.next_item += 1000
        before = self.coalescer.waiting(model)
        call = self.coalescer.submit(model, params, items, BATCH, replicas, calls_in_flight, tag)
        self.waiters.append((task := asyncio.ensure_future(call), items, before))
        return task

    async def play(self, schedule):
        for action, *arguments in schedule:
            if action == "submit":
                self.submit(*arguments)
            elif action == "answer" and self.replica.open:
                self.replica.answer(arguments[0], fail=arguments[1])
            elif action == "cancel" and self.waiters:
                self.waiters[arguments[0] % len(self.waiters)][0].cancel()
            elif action == "settle":
                await settle()
        await settle()
        for _ in range(10_000):
            if not self.replica.open:
                break
            self.replica.answer(0)
            await settle()
        self.check()

    def check(self):
        for task, items, _ in self.waiters:
            assert task.done(), "a waiter was forgotten"
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                assert task.result() == [("answered", item) for item in items]
            else:
                assert isinstance(error, CallFailed | OverloadedError)
        assert all(count <= CALLS for count in self.replica.busiest.values())
        assert not self.coalescer._lines, "something is left behind"


def random_schedule(rng):
    schedule = []
    for _ in range(rng.randrange(1, 30)):
        kind = rng.random()
        if kind < 0.45:
            schedule.append(("submit", rng.choice("abc"), rng.choice([b"p", b"q"]), rng.choice([1, 1, 1, 2, 5, 8, 20])))
        elif kind < 0.7:
            schedule.append(("answer", rng.randrange(4), rng.random() < 0.15))
        elif kind < 0.8:
            schedule.append(("cancel", rng.randrange(30)))
        else:
            schedule.append(("settle",))
    return schedule


@pytest.mark.timeout(120)
def test_ten_thousand_random_schedules():
    async def play_all():
        rng = random.Random(2026)
        answered = cancelled = failed = 0
        for _ in range(10_000):
            player = Player()
            await player.play(random_schedule(rng))
            cancelled += sum(task.cancelled() for task, _, _ in player.waiters)
            failed += sum(not t.cancelled() and t.exception() is not None for t, _, _ in player.waiters)
            answered += sum(not t.cancelled() and t.exception() is None for t, _, _ in player.waiters)
        return answered, cancelled, failed

    answered, cancelled, failed = asyncio.run(play_all())
    assert min(answered, cancelled, failed) > 1000, "the schedules exercise every ending"


actions = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from("ab"), st.sampled_from([b"p", b"q"]), st.integers(1, 20)),
    st.tuples(st.just("answer"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("settle")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(actions, max_size=30))
def test_any_schedule(schedule):
    asyncio.run(Player().play(schedule))


def test_little_load_is_sent_at_once_and_much_load_in_batches():
    async def run():
        player = Player()
        for _ in range(12):
            player.submit("a", b"p", 1)
            await settle()
        assert [size for *_, size in player.replica.batches] == [1, 1]
        player.replica.answer(0)
        await settle()
        assert [size for *_, size in player.replica.batches] == [1, 1, BATCH]
        await player.play([])
        assert sum(size for *_, size in player.replica.batches) == 12

    asyncio.run(run())


def test_what_arrives_together_is_one_call():
    async def run():
        player = Player()
        for _ in range(BATCH):
            player.submit("a", b"p", 1)
        await settle()
        assert [size for *_, size in player.replica.batches] == [BATCH]
        await player.play([])

    asyncio.run(run())


def test_more_replicas_take_more_calls():
    async def run():
        player = Player()
        tasks = [player.submit("a", b"p", 1, replicas=3) for _ in range(12)]
        await settle()
        assert [size for *_, size in player.replica.batches] == [4, 4, 4], "three free replicas share what arrives"
        while player.replica.open:
            player.replica.answer(0)
            await settle()
        assert all(task.result() for task in tasks)

    asyncio.run(run())


def test_a_model_may_have_fewer_calls_in_flight():
    async def run():
        player = Player()
        tasks = [player.submit("a", b"p", 1, calls_in_flight=1) for _ in range(2 * BATCH)]
        await settle()
        assert [size for *_, size in player.replica.batches] == [BATCH]
        player.replica.answer(0)
        await settle()
        assert [size for *_, size in player.replica.batches] == [BATCH, BATCH]
        player.replica.answer(0)
        await settle()
        assert all(task.result() for task in tasks)

    asyncio.run(run())


def test_a_full_queue_refuses_at_once_with_an_estimate():
    async def run():
        player = Player()
        for _ in range(CALLS * BATCH + LIMIT):
            player.submit("a", b"p", 1)
        await settle()
        assert not any(task.done() for task, *_ in player.waiters), "a burst fills the free calls, then the queue"
        player.submit("a", b"p", 1)
        player.submit("b", b"p", 1)
        await settle()
        refused = player.waiters[-2][0]
        assert isinstance(refused.exception(), OverloadedError)
        assert refused.exception().retry_after >= 1
        assert not player.waiters[-1][0].done(), "another model is not affected"
        await player.play([])

    asyncio.run(run())


def test_a_busy_model_does_not_hold_another_back():
    async def run():
        player = Player()
        for _ in range(30):
            player.submit("busy", b"p", 1)
        player.submit("idle", b"p", 1)
        await settle()
        assert ("idle", b"p", 1) in player.replica.batches
        await player.play([])

    asyncio.run(run())


def test_parameter_sets_take_turns():
    async def run():
        player = Player()
        for _ in range(CALLS):
            player.submit("a", b"p", 8)
        for _ in range(2):
            player.submit("a", b"p", 8)
        player.submit("a", b"q", 1)
        await settle()
        while player.replica.open:
            player.replica.answer(0)
            await settle()
        order = [params for _, params, _ in player.replica.batches]
        assert order.index(b"q") < len(order) - 1, "q waited for every p"

    asyncio.run(run())


def test_a_cancelled_waiter_is_never_sent_and_an_abandoned_call_is_cancelled():
    async def run():
        player = Player()
        for _ in range(3):
            player.submit("a", b"p", 1)
            await settle()
        player.waiters[2][0].cancel()  # waits
        player.waiters[0][0].cancel()  # alone in its call
        await settle()
        assert player.replica.cancelled == 1
        assert len(player.replica.batches) == 2
        await player.play([])

    asyncio.run(run())


def test_a_shared_call_goes_on_while_one_waiter_is_left():
    async def run():
        player = Player()
        for _ in range(CALLS + 2):
            player.submit("a", b"p", 1)
            await settle()
        player.replica.answer(0)
        await settle()
        player.waiters[2][0].cancel()
        await settle()
        assert player.replica.cancelled == 0
        await player.play([])
        assert player.waiters[3][0].result()

    asyncio.run(run())


def test_a_call_in_advance_is_not_smaller_than_the_one_in_flight():
    async def run():
        player = Player()
        for count in (1, 1):
            player.submit("a", b"p", count)
        await settle()
        player.submit("a", b"p", 1)
        await settle()
        assert [count for *_, count in player.replica.batches] == [2], "a wave's first left by itself"
        player.submit("a", b"p", 1)
        await settle()
        assert [count for *_, count in player.replica.batches] == [2, 2]
        await player.play([])

    asyncio.run(run())


def test_short_calls_in_flight_are_of_one_size():
    async def run():
        player = Player()
        player.submit("a", b"p", 1)
        await settle()
        for _ in range(40):  # until they are known to be short
            player.submit("a", b"p", 1)
            await settle()
            player.replica.answer(0)
            await settle()
        for count in [1] * 9:
            player.submit("a", b"p", count)
        player.replica.answer(0)
        player.replica.batches.clear()
        await settle()
        assert [count for *_, count in player.replica.batches] == [5, 4]
        player.replica.answer(0)
        for _ in range(6):
            player.submit("a", b"p", 1)
        await settle()
        assert [count for *_, count in player.replica.batches] == [5, 4, 5], "more than its share"
        await player.play([])

    asyncio.run(run())


@pytest.mark.parametrize("first", [(1, 7), (8,)], ids=["a long call", "a call of one caller"])
def test_nobody_waits_behind(first):
    async def run():
        player = Player()
        for count in first:  # eight items are taken to need more than fifty milliseconds
            player.submit("a", b"p", count)
        await settle()
        player.submit("a", b"p", 1)
        await settle()
        assert [count for *_, count in player.replica.batches] == [8, 1]
        await player.play([])

    asyncio.run(run())


def test_a_caller_waits_no_longer_than_it_says():
    async def run():
        player = Player()
        with pytest.raises(TimeoutError):
            await player.coalescer.submit("a", b"p", [("a", b"p", 0)], BATCH, tag="caller of 0", seconds=0.01)
        await settle()
        assert player.replica.cancelled == 1
        assert not player.coalescer._lines

    asyncio.run(run())


def test_a_wrong_number_of_outputs_reaches_the_waiters():
    async def run():
        async def send(model, params, items, tags):
            return items[:-1]

        coalescer = Coalescer(send, queue_limit=8)
        with pytest.raises(RuntimeError, match="1 outputs for 2 inputs"):
            await coalescer.submit("a", b"", [1, 2], 8)

    asyncio.run(run())


def test_closing_ends_every_waiter():
    async def run():
        player = Player()
        for _ in range(9):
            player.submit("a", b"p", 1)
        await settle()
        await player.coalescer.close()
        await settle()
        assert all(task.cancelled() for task, *_ in player.waiters)

    asyncio.run(run())
