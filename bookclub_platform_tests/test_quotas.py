"""Quotas: counted by all workers together, told in the headers, for whoever really asks."""

from __future__ import annotations

import functools
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import load_settings
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import problem
from serving.access import quotas
from serving.access.callers import neighbourhood
from serving.access.quotas import Quota, SharedQuotas
from serving.access.tries import Tries, WrongPassword
from serving.app import create_app
from serving.http.problems import Problem

world = given.world

NOWHERE = "http://127.0.0.1:1"
TEN = Quota("ten", 10, 60)


def test_as_many_pass_as_the_quota_has_and_the_rest_are_told_when_to_come_back(tmp_path: Path) -> None:
    shared = SharedQuotas(tmp_path / "quotas")
    standings = [shared.take(TEN, "ada") for _ in range(12)]
    assert [standing.remaining for standing in standings] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
    assert [standing.is_over for standing in standings] == [False] * 10 + [True] * 2
    assert 59 < (standings[-1].retry_s or 0) <= 61, "all came at once"
    assert standings[-1].window_s == standings[-1].retry_s
    assert not shared.take(TEN, "grace").is_over and not shared.take(Quota("other", 10, 60), "ada").is_over


@pytest.mark.parametrize("quota", [Quota("login", 10, 60), Quota("anonymous", 120, 60), Quota("odd", 7, 3601)])
@pytest.mark.parametrize("seed", range(3))
def test_no_window_wherever_it_begins_has_more_than_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: Quota, seed: int
) -> None:
    shared, chance, now = SharedQuotas(tmp_path / "quotas"), random.Random(seed), 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    passed: list[float] = []
    for _ in range(4000):
        pace = chance.choice([0.0, 0.1, 1.0, 3.0]) * quota.window_s / quota.amount
        now += chance.expovariate(1 / pace) if pace else 0
        standing = shared.take(quota, "ada")
        if not standing.is_over:
            passed.append(now)
        elif chance.random() < 0.05:  # who comes when told finds a place
            now += standing.retry_s or 0
            assert not shared.take(quota, "ada").is_over
            passed.append(now)
    assert all(
        later - earlier >= quota.window_s for earlier, later in zip(passed, passed[quota.amount :], strict=False)
    )
    assert len(passed) > 4 * quota.amount


def test_who_asks_evenly_all_the_time_gets_most_of_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, now = SharedQuotas(tmp_path / "quotas"), 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    taken = 0
    for _ in range(6000):
        now += 0.1
        taken += not shared.take(Quota("hundred", 100, 60), "ada").is_over
    assert 10 * 100 * 0.85 < taken <= 1000 + 100


def test_what_is_said_to_be_left_passes_and_no_more_until_some_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, now = SharedQuotas(tmp_path / "quotas"), 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    shared.take(TEN, "ada", 3)
    now += 30
    said = shared.take(TEN, "ada", 2)
    assert (said.remaining, said.window_s) == (5, 30)
    now += 29.9
    assert [shared.take(TEN, "ada").is_over for _ in range(6)] == [False] * 5 + [True]
    now += 0.1
    assert [shared.take(TEN, "ada").is_over for _ in range(4)] == [False] * 3 + [True]


def test_refusals_cost_nothing_and_a_clock_set_back_shuts_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, now = SharedQuotas(tmp_path / "quotas"), 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    for _ in range(50):
        shared.take(TEN, "ada")
    now += 60
    assert sum(not shared.take(TEN, "ada").is_over for _ in range(30)) == 10
    now -= 86400
    assert shared.take(TEN, "ada").is_over
    now += 61
    assert not shared.take(TEN, "ada").is_over


def test_of_several_quotas_none_counts_what_one_refuses(tmp_path: Path) -> None:
    shared, two = SharedQuotas(tmp_path / "quotas"), Quota("two", 2, 60)
    both = [(two, "ada"), (TEN, "here")]
    for left in ((1, 9), (0, 8), (0, 8)):
        standings = shared.take_all(both)
        assert tuple(standing.remaining for standing in standings) == left
    assert [standing.is_over for standing in standings] == [True, False]
    assert shared.take(TEN, "here").remaining == 7


def test_a_request_may_be_worth_several_and_the_whole_quota_at_most(tmp_path: Path) -> None:
    shared = SharedQuotas(tmp_path / "quotas")
    assert [shared.take(TEN, "ada", units).remaining for units in (1, 4)] == [9, 5]
    refused = shared.take(TEN, "ada", 6)
    assert refused.is_over and refused.remaining == 5 and 59 < (refused.retry_s or 0) <= 61
    assert shared.take(TEN, "ada", 5).remaining == 0
    assert shared.take(TEN, "eve", 50).remaining == 0 and shared.take(TEN, "eve").is_over


TAKE_MANY = """
import sys; from pathlib import Path; from serving.access.quotas import Quota, SharedQuotas
shared, quota = SharedQuotas(Path(sys.argv[1])), Quota("shared", 500, 3600)
print(sum(not shared.take(quota, "ada").is_over for _ in range(400)))
"""


def test_processes_at_once_let_no_more_through_than_one_would(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKE_MANY, str(tmp_path / "quotas")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(3)]
    passed = sum(int(process.communicate()[0]) for process in started)
    assert passed == 500


WITHOUT_ROOM = """
import resource, sys; from pathlib import Path; from serving.access import quotas
limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
shared, quota = quotas.SharedQuotas(Path(sys.argv[1])), quotas.Quota("ten", 10, 3600)
limit(300_000)
print(sum(not shared.take(quota, "ada").is_over for _ in range(15)), "File too large" in (shared.fault or ""))
limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
print(sum(not shared.take(quota, "ada").is_over for _ in range(15)), shared.fault is None)
quotas.time.monotonic = lambda: 1e9
print(sum(not shared.take(quota, "ada").is_over for _ in range(15)), shared.fault is None)
print(sum(not quotas.SharedQuotas(Path(sys.argv[1])).take(quota, "ada").is_over for _ in range(15)))
"""


def test_where_there_is_no_room_for_the_file_it_counts_in_memory_until_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_ROOM, str(tmp_path / "serving" / "quotas")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10", "True", "0", "False", "10", "True", "0"]
    assert done.stderr.count("Each worker counts its quotas for itself") == 1


def test_without_the_file_every_route_answers_under_its_quota_and_ready_tells(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "serving" / "windows").mkdir(parents=True)
    with api(database_url, tmp_path, anonymous_per_minute=3) as client:
        assert [client.get("/categories").status_code for _ in range(4)] == [200] * 3 + [429]
        checks = client.get("/ready").json()["checks"]
    assert not checks["quotas"]["ok"] and "counts for itself" in checks["quotas"]["detail"]
    assert checks["disk"]["ok"]


def test_the_file_of_all_callers_is_small(tmp_path: Path) -> None:
    SharedQuotas(tmp_path / "quotas").take(TEN, "first")
    assert (tmp_path / "quotas").stat().st_size < 6e6


def test_more_callers_than_places_take_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = 128
    size = quotas._SALT_BYTES + sets * quotas._WAYS * quotas._SLOT.size
    monkeypatch.setattr(quotas, "_SETS", sets)
    monkeypatch.setattr(quotas, "_SIZE", size)
    shared = SharedQuotas(tmp_path / "quotas")
    for number in range(2 * sets * quotas._WAYS):
        shared.take(TEN, str(number))
    assert (tmp_path / "quotas").stat().st_size == size
    assert shared.take(TEN, "who takes another's place").remaining == TEN.amount - 1


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_ipv6_household_counts_as_one(one: str, other: str, is_same: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) == is_same


@contextmanager
def api(database_url: str, home: Path, **settings: Any) -> Iterator[httpx.Client]:
    with given.serving(create_app(given.settings(home, model_poll_s=60, **settings), database_url, NOWHERE)) as client:
        yield client


def test_two_servers_of_one_home_count_together_and_say_how_the_caller_stands(
    database_url: str, tmp_path: Path
) -> None:
    with (
        api(database_url, tmp_path, anonymous_per_minute=6) as one,
        api(database_url, tmp_path, anonymous_per_minute=6) as other,
    ):
        answers = [client.get("/categories") for _ in range(4) for client in (one, other)]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
        assert answers[0].headers["ratelimit-policy"] == '"anonymous";q=6;w=60'
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers[:6]] == [
            f"r={n}" for n in range(5, -1, -1)
        ]
        assert problem(answers[-1], 429)["violated-policies"] == ["anonymous"]
        assert 50 <= int(answers[-1].headers["retry-after"]) <= 61
        assert one.get("/health").is_success and one.get("/metrics").is_success, "probes are not counted"
        assert one.get("/nothing-here").status_code == 429, "what is not there is counted as well"


def test_an_account_has_a_quota_of_its_own_wherever_it_asks_from(database_url: str, tmp_path: Path) -> None:
    with api(database_url, tmp_path, anonymous_per_minute=2, account_per_minute=4) as client:
        made = client.post("/register", json={"username": "quota", "password": "four words of mine"})
        token = {"authorization": f"Bearer {made.json()['access_token']}"}
        assert [client.get("/categories", headers=token).status_code for _ in range(5)] == [200] * 4 + [429]
        assert client.get("/categories").headers["ratelimit-policy"].startswith('"anonymous";q=2')
        assert client.get("/categories", headers={"authorization": "Bearer forged"}).status_code == 401
        forged = client.get("/categories", headers={"authorization": "Bearer forged"})
        assert problem(forged, 429), "a token that does not hold counts for the address"


def test_the_accounts_of_an_address_have_a_quota_together(database_url: str, tmp_path: Path) -> None:
    limits = {"account_per_minute": 4, "address_per_minute": 6, "trusted_proxies": "127.0.0.1"}
    with api(database_url, tmp_path, **limits) as client:

        def account(name: str) -> str:
            made = client.post("/register", json={"username": name, "password": "four words of mine"})
            return f"Bearer {made.json()['access_token']}"

        def ask(token: str, number: int) -> httpx.Response:
            return client.get("/categories", headers={"authorization": token, "x-forwarded-for": f"192.0.2.{number}"})

        one, other = account("one"), account("other")
        first = ask(one, 1)
        assert first.headers["ratelimit-policy"] == '"account";q=4;w=60, "address";q=6;w=60'
        assert re.fullmatch(r'"account";r=3;t=\d+, "address";r=5;t=\d+', first.headers["ratelimit"])
        answers = [ask(one, 1) for _ in range(4)] + [ask(other, 1) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] + [200] * 2 + [429]
        assert problem(answers[3], 429)["violated-policies"] == ["account"]
        assert problem(answers[-1], 429)["violated-policies"] == ["address"]
        assert ask(other, 2).is_success, "from elsewhere"


def test_what_costs_more_counts_as_more_requests(
    world: given.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [book_id for theme in given.THEMES for book_id in given.ids_of(world, theme)]
    many = (ids * 3)[:100]

    def left(answer: httpx.Response) -> str:
        return answer.headers["ratelimit"].split(";")[1]

    app = create_app(given.settings(tmp_path, anonymous_per_minute=40), world.database_url, world.tracking_uri)
    with given.serving(app) as client:
        given.wait_for(lambda: client.get("/ready").is_success, 30)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now)  # nothing comes back meanwhile
        ask = functools.partial(client.post, "/recommendations:batch")
        assert left(ask(json={"book_ids": many[:10], "limit": 10})) == "r=39"
        whole = ask(json={"book_ids": many, "limit": 10})
        assert (
            left(whole) == "r=29"
            and whole.json() == world.client.post("/recommendations:batch", json={"book_ids": many, "limit": 10}).json()
        )
        assert left(ask(json={"book_ids": many[:20], "limit": 50, "diversity": 0.5})) == "r=9"
        beyond = problem(ask(json={"book_ids": many, "limit": 10}), 429)
        assert beyond["violated-policies"] == ["anonymous"]
        assert "counts as 10, and the quota anonymous has 9 left of 40 requests in 60 s" in beyond["detail"]
        assert left(client.get("/categories")) == "r=8", "what was refused has cost nothing"
        monkeypatch.setattr(time, "time", lambda: now + 61)
        assert left(ask(json={"book_ids": many, "limit": 100})) == "r=0", "the whole quota, if it is smaller"
        monkeypatch.setattr(time, "time", lambda: now + 122)
        path = f"/books/{ids[0]}/recommendations"
        for left_then, answer in (
            (39, client.get(path)),
            (37, client.get(path, params={"diversity": 0.5})),
            (35, client.post("/recommendations", json={"liked": ids[:2], "diversity": 1})),
            (34, client.get("/books")),
            (32, client.get("/books?facets=true")),
            (31, client.get("/books/search?q=tale")),
            (25, client.get("/books/search", params={"q": "tale " * 190, "facets": True})),
            (20, client.get("/catalogue", params={"q": "tale " * 190})),
        ):
            assert answer.is_success and left(answer) == f"r={left_then}", answer.url


def test_logins_and_registrations_have_tight_quotas(database_url: str, tmp_path: Path) -> None:
    with api(database_url, tmp_path, logins_per_minute=3, registrations_per_hour=2) as client:
        wrong = {"username": "nobody", "password": "wrong"}
        assert [client.post("/login", data=wrong).status_code for _ in range(4)] == [401] * 3 + [429]
        names = [{"username": f"name{n}", "password": "four words of mine"} for n in range(3)]
        assert [client.post("/register", json=name).status_code for name in names] == [201] * 2 + [429]
        assert client.get("/categories").is_success


def log_in(client: httpx.Client, name: str, password: str, number: int) -> httpx.Response:
    """From an address of that number."""
    headers = {"x-forwarded-for": f"192.0.2.{number}"}
    return client.post("/login", data={"username": name, "password": password}, headers=headers)


def test_who_guesses_at_a_name_keeps_its_owner_neither_from_logging_in_nor_from_another_password(
    database_url: str, tmp_path: Path
) -> None:
    words = "four words of mine"
    with api(database_url, tmp_path, logins_per_minute=3, trusted_proxies="127.0.0.1") as client:
        made = client.post("/register", json={"username": "victim", "password": words}).json()
        for name in ("victim", "nobody-such"):
            wrong = [log_in(client, name, "wrong", 66 if name == "victim" else 67).status_code for _ in range(9)]
            assert wrong == [401] * 3 + [429] * 6, "a name that is not there is answered as one that is"
        assert log_in(client, "victim", words, 1).is_success
        change = {"old_password": words, "new_password": "five other words of mine"}
        headers = {"authorization": f"Bearer {made['access_token']}", "x-forwarded-for": "192.0.2.2"}
        assert client.post("/password", json=change, headers=headers).status_code == 204


def test_one_name_is_not_guessed_at_from_many_addresses_and_its_owner_gets_in_all_the_same(
    database_url: str, tmp_path: Path
) -> None:
    words = "four words of mine"
    with api(database_url, tmp_path, logins_per_minute=3, trusted_proxies="127.0.0.1") as client:
        assert client.post("/register", json={"username": "sought", "password": words}).status_code == 201
        assert [log_in(client, "sought", "wrong", n).status_code for n in range(10) for _ in range(3)] == [401] * 30
        strained = [log_in(client, "sought", "wrong", 99) for _ in range(3)]
        assert [answer.status_code for answer in strained] == [401, 401, 429]
        assert problem(strained[2], 429)["violated-policies"] == ["login-strained"]
        assert log_in(client, "sought", words, 200).is_success
        assert log_in(client, "another", "wrong", 100).status_code == 401


def one_wrong(tries: Tries, name: str, address: str) -> bool:
    """Whether it was looked at."""
    try:
        with tries.one(name, address):
            raise WrongPassword(is_login=True)
    except WrongPassword:
        return True
    except Problem:
        return False


def test_right_passwords_and_faults_of_ours_cost_nothing_and_wrong_ones_of_an_address_add_up(tmp_path: Path) -> None:
    tries = Tries(SharedQuotas(tmp_path / "quotas"), 3)
    for _ in range(50):
        with tries.one("ada", "192.0.2.1"):
            pass
        with pytest.raises(Problem, match="Too many people"), tries.one("ada", "192.0.2.1"):
            raise Problem("busy", "Too many people log in just now.")
    assert [one_wrong(tries, "ada", "192.0.2.1") for _ in range(4)] == [True] * 3 + [False]
    names = [one_wrong(tries, f"name-{number}", "192.0.2.1") for number in range(40)]
    assert sum(names) == 27, "ten times as many from one address, whatever the names"
    with pytest.raises(Problem), tries.one("ada", "192.0.2.1"):
        pytest.fail("looked at")
    assert [one_wrong(Tries(SharedQuotas(tmp_path / "none"), 0), "ada", "192.0.2.1") for _ in range(50)] == [True] * 50


def test_many_guesses_at_once_are_no_more_than_one_after_the_other(database_url: str, tmp_path: Path) -> None:
    with api(database_url, tmp_path, logins_per_minute=5, trusted_proxies="127.0.0.1") as client:
        with ThreadPoolExecutor(12) as pool:
            wait = [pool.submit(log_in, client, "hurried", "wrong", 1) for _ in range(12)]
        statuses = [job.result().status_code for job in wait]
    assert statuses.count(401) <= 5 and set(statuses) == {401, 429}


def test_who_asks_is_taken_from_trusted_proxies_alone_and_from_the_right(database_url: str, tmp_path: Path) -> None:
    def remaining(client: httpx.Client, forwarded: str) -> str:
        return client.get("/categories", headers={"x-forwarded-for": forwarded}).headers["ratelimit"]

    with api(database_url, tmp_path / "a", anonymous_per_minute=9) as client:
        assert "r=8" in remaining(client, "192.0.2.1")
        assert "r=7" in remaining(client, "192.0.2.2"), "nobody is trusted, so both are this machine"
    with api(database_url, tmp_path / "b", anonymous_per_minute=9, trusted_proxies="127.0.0.0/8,10.0.0.1") as client:
        assert "r=8" in remaining(client, "192.0.2.1")
        assert "r=7" in remaining(client, "203.0.113.9, 192.0.2.1"), "what the client wrote itself is to the left"
        assert "r=6" in remaining(client, "192.0.2.1, 10.0.0.1"), "two proxies, both trusted"
        assert "r=8" in remaining(client, "192.0.2.2")


@pytest.mark.parametrize("value", ["*", "gateway", "10.0.0.1/33"])
def test_trust_in_everybody_or_nobody_in_particular_is_a_wrong_setting(value: str) -> None:
    with pytest.raises(ConfigurationError, match="BOOKCLUB_TRUSTED_PROXIES"):
        load_settings(trusted_proxies=value)
