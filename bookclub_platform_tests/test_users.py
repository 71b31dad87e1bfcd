"""`bookclub users`: the operator's hand on the accounts, as a command of its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from getpass import getuser
from pathlib import Path

import sqlalchemy as sa

from bookclub_platform.core import accounts, categories, passwords
from bookclub_platform.core.book import Category
from bookclub_platform_tests import api_fixtures as given

ROOT = Path(__file__).parents[1]
PASSWORD = "four words of mine"


def users(database_url: str, home: Path, *arguments: str, line: str = "") -> subprocess.CompletedProcess[str]:
    return command(database_url, home, "users", *arguments, line=line)


def command(database_url: str, home: Path, *arguments: str, line: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "BOOKCLUB_DATABASE_URL": database_url,
        "BOOKCLUB_HOME": str(home),
    }
    called = [sys.executable, "-m", "bookclub_platform.cli", *arguments]
    return subprocess.run(called, input=line, env=environment, cwd=home, capture_output=True, text=True)


def test_the_first_administrator_is_made_listed_and_shut_out_by_commands(database_url: str, tmp_path: Path) -> None:
    made = users(database_url, tmp_path, "add", "Boss", "--admin", line=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    assert '"act": "add-user"' in made.stderr and PASSWORD not in made.stderr + made.stdout
    (row,) = given.read(database_url, sa.select(accounts.users))
    assert (row.username, row.scopes) == ("boss", ["read", "export", "feedback", "readers", "admin"])
    assert passwords.is_password(PASSWORD, row.password_hash)
    again = users(database_url, tmp_path, "add", "boss", line=f"{PASSWORD}\n")
    assert again.returncode == 1 and "already" in again.stderr and "Traceback" not in again.stderr
    shop = users(database_url, tmp_path, "add", "shop-server", "--readers", line=f"{PASSWORD}\n")
    assert shop.returncode == 0, shop.stderr
    assert "shop-server\tread export feedback readers\tactive" in users(database_url, tmp_path, "list").stdout
    weak = users(database_url, tmp_path, "add", "other", line="short\n")
    assert weak.returncode == 1 and "12 to 256 characters" in weak.stderr
    assert users(database_url, tmp_path, "disable", "boss").returncode == 0
    assert "boss\tread export feedback readers admin\tdisabled" in users(database_url, tmp_path, "list").stdout
    unknown = users(database_url, tmp_path, "disable", "nobody")
    assert unknown.returncode == 1 and "users list" in unknown.stderr


def test_keys_are_rotated_by_a_command(tmp_path: Path) -> None:
    nowhere = "postgresql://127.0.0.1:1/none"
    kids = []
    for _ in range(2):
        assert users(nowhere, tmp_path, "rotate-keys").returncode == 0
        keys = json.loads((tmp_path / "serving" / "token_keys.json").read_text())["keys"]
        kids.append({key["kid"]: key["replaced_at"] for key in keys})
    (first,) = kids[0]
    assert kids[0][first] is None and kids[1][first] is not None and len(kids[1]) == 2


def test_every_act_of_an_operator_is_kept_with_who_did_it(database_url: str, tmp_path: Path) -> None:
    given.load(database_url, "sea", given.catalogue()["sea"][:2])
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        listed = [Category("sea", "Sea", "http://127.0.0.1/sea")]
        categories.note_listing(connection, "books_toscrape", listed, given.FIRST_CRAWL)

    def run(*arguments: str, line: str = "") -> None:
        done = command(database_url, tmp_path, *arguments, line=line)
        assert done.returncode == 0, done.stderr

    run("users", "add", "keeper", line=f"{PASSWORD}\n")
    run("users", "password", "keeper", line="five other words of mine\n")
    run("users", "disable", "keeper")
    run("users", "rotate-keys")
    run("users", "list")
    run("categories", "retire", "sea")
    run("categories", "restore", "sea")
    text = (tmp_path / "logs" / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    told = ["add-user", "set-password", "disable-user", "rotate-keys", "retire-category", "restore-category"]
    assert [line["act"] for line in lines] == told
    assert {line["by"] for line in lines} == {getuser()} and "words" not in text
