"""Delivery compared with bare libraries, with what users would write instead, and with itself under a long backlog.

Each contestant runs in a separate process, against a receiver in another. They take turns; each figure is the median
of the ratios per round. Batches are accepted directly by the store, and over HTTP by a whole `fotahook serve`.
"""

from bench import delivery_accept, delivery_backlog, delivery_fairness, delivery_rate
from bench.report import Figure, Report

PEERS = ("aiohttp", "huey", "procrastinate", "requests")


def main(report: Report) -> None:
    figures: list[Figure] = []
    for part in (delivery_accept, delivery_rate, delivery_fairness, delivery_backlog):
        figures += part.figures(report)
    report.compare(figures)
