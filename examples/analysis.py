"""What a data scientist does with the API: log in, pull all books into pandas, describe them, ask for a recommendation.

    BOOKCLUB_API=http://127.0.0.1:8000 BOOKCLUB_USER=ada BOOKCLUB_PASSWORD='four words of mine' python analysis.py

It needs httpx, pandas and pyarrow, and an account, which POST /register makes.
"""

import io
import os

import httpx
import pandas as pd

# %% Log in: the token goes with every request from here on.
api = httpx.Client(base_url=os.environ.get("BOOKCLUB_API", "http://127.0.0.1:8000"), timeout=60)
login = api.post(
    "/login", data={"username": os.environ["BOOKCLUB_USER"], "password": os.environ["BOOKCLUB_PASSWORD"]}
).raise_for_status()
api.headers["Authorization"] = f"Bearer {login.json()['access_token']}"

# %% All books, of one state of the catalogue.
export = api.get("/books/export", params={"format": "parquet"}).raise_for_status()
books = pd.read_parquet(io.BytesIO(export.content)).astype({"price": float})
print(f"{len(books)} books of data version {export.headers['Bookclub-Data-Version']}")

# %% Statistics: prices by category, and whether dear books are better liked.
print(books.groupby("category_name")["price"].describe().round(2))
print(f"Correlation of price and stars: {books['price'].corr(books['rating']):.3f}")

# %% Books like the dearest one.
dearest = books.loc[books["price"].idxmax()]
like_it = api.get(f"/books/{dearest['id']}/recommendations", params={"limit": 5}).raise_for_status().json()
for item in like_it["items"]:
    print(f"{item['score']:.2f}  {item['book']['title']}  ({', '.join(why['value'] for why in item['why'][:3])})")
