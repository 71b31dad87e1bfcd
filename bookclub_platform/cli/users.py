"""`bookclub users add|list|disable|password|rotate-keys`."""

from __future__ import annotations

import sys

import click

from bookclub_platform.cli._audit import keep_audit
from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import quieten
from bookclub_platform.core.settings import load_settings


@main.group()
def users() -> None:
    """Accounts of the API."""
    quieten()
    keep_audit()


@users.command("add")
@click.argument("username")
@click.option("--admin", is_flag=True, help="Give all rights, such as starting crawls.")
@click.option("--readers", is_flag=True, help="Allow the account to name readers in feedback: for a shop's server.")
def add_user(username: str, admin: bool, readers: bool) -> None:
    """Make an account. The password is prompted for, or read from the first line of standard input."""
    from bookclub_platform.users import add

    add(load_settings(), username, _password(), admin, ["readers"] if readers else [])


@users.command("list")
def list_users() -> None:
    """List all accounts."""
    from bookclub_platform.users import listed

    for user in listed(load_settings()):
        state = f"disabled {user.disabled_at:%Y-%m-%d}" if user.disabled_at else "active"
        click.echo(f"{user.username}\t{' '.join(user.scopes)}\t{state}")


@users.command("disable")
@click.argument("username")
def disable_user(username: str) -> None:
    """Disable an account at once."""
    from bookclub_platform.users import disable

    disable(load_settings(), username)


@users.command("password")
@click.argument("username")
def set_password(username: str) -> None:
    """Set a new password, prompted for or read from standard input, and end all sessions of the account."""
    from bookclub_platform.users import set_password as give

    give(load_settings(), username, _password())


@users.command("rotate-keys")
def rotate_keys() -> None:
    """Sign tokens with a new key. Tokens that were signed before stay valid until they expire."""
    from bookclub_platform.users import rotate_keys as rotate

    click.echo(f"Tokens are signed with the key {rotate(load_settings())} from now on.")


def _password() -> str:
    """Never an option: everybody on the machine can read the command line of a process."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password
