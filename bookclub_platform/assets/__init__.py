"""The Dagster layer: each asset reads its inputs, calls pure functions of the layers below, and returns metadata."""
