"""A file of {path: response body} -> a FastAPI application that returns the same bytes, and does nothing else.

BENCH_ANSWERS=answers.json uvicorn _bare:app
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fastapi import FastAPI, Response

ANSWERS = {path: text.encode() for path, text in json.loads(Path(os.environ["BENCH_ANSWERS"]).read_text()).items()}

app = FastAPI()


@app.get("/books")
async def page() -> Response:
    return Response(ANSWERS["/books"], media_type="application/json")


@app.get("/books/{book_id}")
async def book(book_id: int) -> Response:
    return Response(ANSWERS[f"/books/{book_id}"], media_type="application/json")


@app.get("/books/{book_id}/recommendations")
async def recommend(book_id: int) -> Response:
    return Response(ANSWERS[f"/books/{book_id}/recommendations"], media_type="application/json")
