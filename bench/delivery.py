"""The delivery engine beside bare libraries, what users would write instead, and itself under a long backlog.

Every contestant runs in a process of its own, against a receiver in another. They take turns, and what is held against
a target is the median of the ratios of each turn. Batches are accepted by the store itself, and once more over HTTP
by a whole `fotahook serve`.
"""

import time

from bench import delivery_accept, delivery_backlog, delivery_fairness, delivery_rate, rig


def main() -> None:
    begun = time.perf_counter()
    print("## delivery\n", flush=True)
    figures: list[rig.Figure] = []
    for part in (delivery_accept, delivery_rate, delivery_fairness, delivery_backlog):
        figures += part.figures()
    rig.print_figures(figures)
    print(f"It took {time.perf_counter() - begun:.0f} s.\n")
