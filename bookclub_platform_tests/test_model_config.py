"""What the asset of the model is configured with: its parameters one by one, and the embedding by a setting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from bookclub_platform.assets.tfidf_model import TfidfConfig
from bookclub_platform.core.errors import ConfigurationError, ModelError
from bookclub_platform.models import Tfidf

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_config_names_every_parameter_of_the_model_with_its_default() -> None:
    assert Tfidf(**TfidfConfig().parameters()).parameters == Tfidf().parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"title_weight": 101},
        {"category_name_weight": -1},
        {"category_weight": 1e308},
        {"min_df": 0},
        {"embedding_weight": 1.1},
        {"embedding_up_to": -1},
    ],
    ids=str,
)
def test_a_run_with_parameters_that_the_model_refuses_does_not_begin(wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError):
        Tfidf(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        TfidfConfig(**wrong)  # type: ignore[arg-type]


def test_the_embedding_is_the_settings_unless_the_run_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TfidfConfig().parameters()["embedding"] == "lsa"
    monkeypatch.setenv("BOOKCLUB_EMBEDDING", "minilm")
    assert TfidfConfig().parameters()["embedding"] == "minilm"
    assert TfidfConfig(embedding="none").parameters()["embedding"] == "none"


def test_an_embedding_that_does_not_exist_is_refused_by_setting_and_by_config(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        TfidfConfig(embedding="other")
    monkeypatch.setenv("BOOKCLUB_EMBEDDING", "other")
    with pytest.raises(ConfigurationError, match="BOOKCLUB_EMBEDDING"):
        TfidfConfig().parameters()


def test_the_ablation_judges_every_variant_of_a_small_shop() -> None:
    command = [sys.executable, str(BENCHMARKS / "ablation.py"), "--sandbox-books", "60"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert {"as chosen", "min_df=5", "embedding=none", "20 directions", "stars make 0.02 of the score"} <= rows.keys()
    assert len(lines) == len(rows) > 30, "each variant once"
    _, _, category, halves, recommended, most_frequent = rows["as chosen"]
    assert 0 < float(category) < 1 and 0 < float(halves) <= 1
    assert 0.5 < float(recommended) <= 1 and 0 < float(most_frequent) < 1
