"""The API: a champion and a table -> answers over HTTP. `python -m serving`; needs neither Dagster nor scikit-learn."""
