"""core/settings.py: what the operator sets, and what is said when it is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[1] / ".env.example"


def variables() -> dict[str, object]:
    """Each variable that Settings reads, with its default."""
    names = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias.choices[0] if hasattr(alias, "choices") else f"BOOKCLUB_{name.upper()}"
        names[str(variable)] = field.default
    return names


def test_the_example_lists_every_setting_with_its_default_and_no_other() -> None:
    written = dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))
    assert written == {name: "" if value is None else str(value) for name, value in variables().items()}


def test_a_file_in_the_working_folder_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("BOOKCLUB_API_PORT=8001\nBOOKCLUB_MLFLOW_PORT=5001\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKCLUB_API_PORT", "8002")
    settings = load_settings()
    assert (settings.api_port, settings.mlflow_port) == (8002, 5001)


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKCLUB_API_PORT", "99999")
    monkeypatch.setenv("BOOKCLUB_SHOP_URL", "books")
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", "mysql://x")
    with pytest.raises(ConfigurationError, match=r"(?s)(?=.*API_PORT)(?=.*SHOP_URL)(?=.*DATABASE_URL)"):
        load_settings()


def test_no_delay_is_for_shops_on_this_machine_alone() -> None:
    assert load_settings(shop_url="http://127.0.0.1:8900").delay_s == 0
    assert load_settings(shop_url="http://books.toscrape.com").delay_s > 0
    with pytest.raises(ConfigurationError, match="BOOKCLUB_CRAWL_DELAY_S"):
        load_settings(shop_url="http://books.toscrape.com", crawl_delay_s=0)
