"""The folder of a Tfidf -> the same model in MLflow's pyfunc format: `predict` of a frame with a column `book_id`."""

from __future__ import annotations

from typing import Any

import mlflow.pyfunc


class Neighbours(mlflow.pyfunc.PythonModel):
    """Returns ids, scores and reasons; the books themselves would have to be read from elsewhere."""

    def load_context(self, context: Any) -> None:
        from bookclub_platform.models import load_model

        self._model = load_model(context.artifacts["tfidf"])

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        return [
            {
                "book_id": found.book_id,
                "score": found.score,
                "why": [[why.kind, why.value, why.share] for why in found.why],
            }
            for book_id in model_input["book_id"]
            for found in self._model.recommend(int(book_id), 10)
        ]


mlflow.models.set_model(Neighbours())
