"""Books in Parquet -> Spark -> what fitting needs of them, the same as when one process counts.

    python -m bookclub_platform.spark books.parquet FOLDER --master 'local[2]'
    model = Tfidf().learn(read_counted(Path("FOLDER")))

`books.parquet` is what `bookclub export books --format parquet` writes. The asset `tfidf_model` starts this by Dagster
Pipes where BOOKCLUB_SPARK_MASTER is set. docs/decisions/0013-fitting-on-spark.md says what is computed where.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.spark._files import FAULT, read_counted

__all__ = ["FAULT", "check_installed", "read_counted"]


def check_installed() -> None:
    """Look for what a Spark job needs on this machine.

    Raises:
        ConfigurationError: names what is missing, and the mend.
    """
    otherwise = "or unset BOOKCLUB_SPARK_MASTER to fit without Spark."
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigurationError(
            "PySpark is not installed. Install the extra, .venv/bin/pip install -c constraints.txt -e '.[spark]', "
            f"{otherwise}"
        )
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        place = f"at JAVA_HOME={home}" if home else "on the PATH"
        raise ConfigurationError(f"Spark needs Java 17 or newer, and there is none {place}. Install one, {otherwise}")
