"""The Dagster shells: each takes, calls a pure function of the layers below, and hands back with metadata."""
