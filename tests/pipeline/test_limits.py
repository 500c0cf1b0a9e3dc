"""How many jobs of a client may wait, and how many pictures one may ask for in an hour."""

import pytest

from pipeline.errors import TooMany
from pipeline.limits import Client, Limits, Quota, network_of

LIMITS = Limits(waiting=2, waiting_of_program=3, waiting_in_all=5)
ME, BOT = Client("me"), Client("bot", program=True)


@pytest.mark.parametrize("client, waiting, sentence", [
    (ME, [ME], None),
    (ME, [ME, ME], "You have 2 jobs waiting already; wait for one to end or interrupt one."),
    (ME, [Client("you")] * 4, None),
    (BOT, [BOT, BOT], None),
    (BOT, [BOT] * 3, "You have 3 jobs waiting already; wait for one to end or interrupt one."),
    (ME, [BOT] * 5, "5 jobs are waiting already, the maximum; try again later."),
])
def test_so_many_jobs_may_wait(client, waiting, sentence):
    if sentence is None:
        return LIMITS.check_waiting(client, waiting)
    with pytest.raises(TooMany, match=f"^{sentence}$"):
        LIMITS.check_waiting(client, waiting)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_pictures_beyond_the_quota_are_refused_with_the_minutes_until_there_is_room(clock):
    quota = Quota(10, clock)
    quota.take(ME, 6)
    clock.now += 600
    quota.take(ME, 3)
    for pictures, minutes in ((2, "50 minutes"), (8, "60 minutes")):
        with pytest.raises(TooMany, match=f"may make 10 pictures an hour, and 9 have been requested already; "
                                          f"there is room for {pictures} more in {minutes}\\.$"):
            quota.take(ME, pictures)
    quota.take(ME, 1)
    clock.now += 3000
    quota.take(ME, 6)


def test_what_is_refused_does_not_count(clock):
    quota = Quota(10, clock)
    for _ in range(3):
        with pytest.raises(TooMany, match="10 pictures an hour, but this request needs 11"):
            quota.take(ME, 11)
    quota.take(ME, 10)


@pytest.mark.parametrize("first, second, shares", [
    (ME, Client("you"), False),
    (Client("me", "1.2.3.4"), Client("another", "1.2.3.4"), True),
    (Client("me", "1.2.3.4"), Client("me", "5.6.7.8"), True),
    (Client("me", "1.2.3.4"), Client("you", "5.6.7.8"), False),
    (Client("me", ""), Client("you", ""), False),
])
def test_a_visitor_is_known_by_id_and_by_address(clock, first, second, shares):
    quota = Quota(1, clock)
    quota.take(first, 1)
    if shares:
        with pytest.raises(TooMany):
            quota.take(second, 1)
    else:
        quota.take(second, 1)


@pytest.mark.parametrize("quota, client", [(Quota(0), ME), (Quota(1), Client("me", owner=True))])
def test_there_may_be_no_quota_and_the_owner_has_none(quota, client):
    quota.take(client, 1000)


@pytest.mark.parametrize("host, network", [
    ("127.0.0.1", ""), ("::1", ""), ("::ffff:127.0.0.1", ""), ("192.168.1.7", "192.168.1.7"),
    ("::ffff:192.168.1.7", "192.168.1.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
    ("testclient", "testclient"),
])
def test_a_visitor_cannot_choose_its_network(host, network):
    assert network_of(host) == network
