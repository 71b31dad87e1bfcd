"""The metrics for Prometheus.

metrics         the metrics of this worker
figures         the metrics of all workers, added up
"""
