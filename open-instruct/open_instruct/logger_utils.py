"""Metrics on disk and in trackers, under upstream's module name: see `open_instruct.run.logger`."""

from open_instruct.run.logger import METRICS_FILE, MetricsLogger, setup_logging

__all__ = ["METRICS_FILE", "MetricsLogger", "setup_logging"]
