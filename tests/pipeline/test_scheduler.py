"""Who takes which job: turns, models in memory, speed; and that nobody waits for ever."""

from itertools import count

from pipeline.scheduler import Asked, Scheduler, in_turn

NUMBERS = count()


def job(client="a", model="one", work=1.0):
    number = next(NUMBERS)
    return Asked(number, client, model, work, float(number))


def took(scheduler, worker, seconds, work=1.0, model="one"):
    """The worker has run a job of somebody who is not there any more."""
    asked = job("gone", model, work)
    scheduler.began(worker, asked, [])
    scheduler.ended(worker, asked, seconds)


def test_without_a_worker_or_a_job_nothing_is_chosen():
    assert Scheduler().choose([], [job()]) is None and Scheduler().choose(["x"], []) is None


def test_people_take_turns():
    first, second, third, other = job("a"), job("a"), job("a"), job("b")
    assert [one for _, one in in_turn([first, second, third, other])] == [first, other, second, third]
    assert [one for _, one in in_turn([second, third, other], ["a"])] == [other, second, third]


def test_who_had_a_turn_lets_the_others_have_theirs():
    scheduler = Scheduler()
    first = job("a")
    scheduler.began("x", first, [])
    waiting, taken = [job("a"), job("a"), job("b"), job("b"), job("c")], []
    seen = [asked for _, asked in scheduler.order(waiting, ["a"])]
    while waiting:
        worker, asked = scheduler.choose(["x"], waiting)
        waiting.remove(asked)
        scheduler.began(worker, asked, waiting)
        taken.append(asked)
    assert taken == seen and [asked.client for asked in taken] == ["b", "c", "a", "b", "a"]


def test_the_worker_that_has_the_model_takes_the_job():
    scheduler = Scheduler()
    took(scheduler, "x", 1.0, model="one")
    took(scheduler, "y", 0.1, model="two")
    assert scheduler.choose(["x", "y"], [job(model="one")])[0] == "x"
    assert scheduler.choose(["x", "y"], [job(model="two")])[0] == "y"


def test_otherwise_the_one_that_will_be_done_soonest():
    scheduler = Scheduler()
    took(scheduler, "slow", 4.0, work=2.0, model="two")
    took(scheduler, "fast", 1.0, work=2.0, model="three")
    assert scheduler.choose(["slow", "fast"], [job(model="one")])[0] == "fast"
    assert scheduler.choose(["slow"], [job(model="one")])[0] == "slow", "nobody waits for a busy worker while another is idle"


def test_of_equals_the_one_whose_model_nobody_waits_for():
    scheduler = Scheduler()
    took(scheduler, "x", 1.0, model="one")
    took(scheduler, "y", 1.0, model="two")
    assert scheduler.choose(["x", "y"], [job("a", "three"), job("a", "one")])[0] == "y"


def test_a_worker_prefers_a_job_of_its_model_but_not_before_its_turn():
    scheduler = Scheduler()
    took(scheduler, "x", 1.0, model="two")
    one, two, again = job("a", "one"), job("b", "two"), job("b", "two")
    assert scheduler.choose(["x"], [one, two, again])[1] is two
    assert scheduler.choose(["x"], [one, again], ["b"])[1] is one


def test_a_job_is_passed_over_only_so_often():
    scheduler = Scheduler(passes=3)
    took(scheduler, "x", 1.0, model="two")
    waiting, taken = [job("a", "one"), *(job(str(number), "two") for number in range(9))], []
    while waiting:
        worker, asked = scheduler.choose(["x"], waiting)
        waiting.remove(asked)
        scheduler.began(worker, asked, waiting)
        taken.append(asked.model)
    assert taken == ["two"] * 3 + ["one"] + ["two"] * 6


def test_a_worker_without_models_is_as_good_as_another():
    scheduler = Scheduler()
    took(scheduler, "x", 1.0)
    scheduler.forget("x")
    took(scheduler, "y", 0.5, model="two")
    assert scheduler.choose(["x", "y"], [job(model="one")])[0] == "y"
