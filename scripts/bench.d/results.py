"""Owns the outcome: medians over the rounds, the table, results.json. Used by `scripts/bench`."""

import json
import os
import statistics
import time

UNITS = (
    ("per_second", "per second", lambda number: f"{number:,.0f}"),
    ("p50_us", "p50 ms", lambda number: f"{number / 1e3:.2f}"),
    ("p99_us", "p99 ms", lambda number: f"{number / 1e3:.2f}"),
    ("cpu_us", "CPU µs", lambda number: f"{number:.2f}"),
    ("rss_bytes", "RSS MiB", lambda number: f"{number / 2**20:.1f}"),
)


class Results:
    def __init__(self, machine, arguments):
        self.path = machine.work / "results.json"
        self.about = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine.description(),
            "versions": machine.versions(),
            "seconds": arguments.seconds,
            "rounds": arguments.rounds,
        }
        # (benchmark, contender and part) → its samples, in the order they came first.
        self.samples = {}
        self.failures = []

    def add(self, benchmark, contender, parts):
        for part, sample in parts.items():
            label = f"{contender}: {part}" if part else contender
            if "error" in sample:
                self.failures.append((benchmark, label, sample["error"]))
            else:
                self.samples.setdefault((benchmark, label), []).append(sample)

    def medians(self):
        for (benchmark, label), samples in self.samples.items():
            names = samples[0]
            median = {name: statistics.median(one[name] for one in samples) for name in names}
            yield benchmark, label, median

    def write(self):
        rows = [{"benchmark": benchmark, "contender": label, "median": median,
                 "rounds": self.samples[benchmark, label]}
                for benchmark, label, median in self.medians()]
        failures = [{"benchmark": benchmark, "contender": label, "error": error}
                    for benchmark, label, error in self.failures]
        # With what others had the machine do meanwhile, numbers say little.
        ended = {"load_average_at_end": os.getloadavg()[0]}
        whole = self.about | ended | {"results": rows, "failures": failures}
        text = json.dumps(whole, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", encoding="utf-8")

    def table(self):
        """Markdown, as wide as it must be."""
        rows = [["benchmark", "contender", *(title for _, title, _ in UNITS), "and"]]
        former = None
        for benchmark, label, median in self.medians():
            known = {name for name, _, _ in UNITS}
            others = ", ".join(f"{name.replace('_', ' ')} {number:,.1f}".removesuffix(".0")
                               for name, number in median.items() if name not in known)
            cells = [show(median[name]) if name in median else "" for name, _, show in UNITS]
            rows.append([benchmark if benchmark != former else "", label, *cells, others])
            former = benchmark
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, ["-" * width for width in widths])
        lines = []
        for row in rows:
            # Words to the left, numbers to the right.
            cells = [cell.rjust(width) if 2 <= column <= 6 else cell.ljust(width)
                     for column, (cell, width) in enumerate(zip(row, widths))]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [f"FAILED {benchmark}, {label}: {error}"
                  for benchmark, label, error in self.failures]
        return "\n".join(lines)
