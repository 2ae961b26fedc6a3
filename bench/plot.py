#!/usr/bin/env python3
"""The plot of docs/performance.md from bench/results/models.csv: each engine's speed as a share of Pensieve's, one panel a phase;
the numbers beside the bars are tokens a second.

    plot.py [bench/results/models.csv] [docs/performance.svg]

Needs matplotlib. The last row of a CSV for an engine, shape and prompt counts.
"""

import csv
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import matplotlib.ticker

COLOURS = {"Pensieve": "#3b5bdb", "OpenVINO GenAI": "#f08c00", "llama.cpp": "#868e96"}


def main(source="bench/results/models.csv", target="docs/performance.svg"):
    rows = {}
    for row in csv.DictReader(open(source)):
        rows[row["engine"], row["shape"], int(row["prompt"])] = row
    cases = sorted({key[1:] for key in rows}, key=lambda case: (case[0], case[1]))
    matplotlib.rcParams["svg.hashsalt"] = "pensieve"  # the same picture has the same bytes
    figure, panels = plt.subplots(1, 2, figsize=(11, 0.5 * len(cases) + 1.6), sharey=True)
    for panel, kind in zip(panels, ("prefill", "decode")):
        for offset, (engine, colour) in enumerate(COLOURS.items()):
            places = [i + 0.27 * (offset - 1) for i, case in enumerate(cases) if (engine, *case) in rows]
            speed = lambda name, case: float(rows[name, *case][f"{kind}_tokens_per_s"])
            rates = [speed(engine, case) for case in cases if (engine, *case) in rows]
            shares = [speed(engine, case) / speed("Pensieve", case) for case in cases if (engine, *case) in rows]
            bars = panel.barh(places, shares, 0.25, color=colour, label=engine)
            panel.bar_label(bars, [f"{rate:.0f}" for rate in rates], fontsize=7, padding=2)
        panel.set_title(kind)
        panel.set_xlim(0, 1.12)
        panel.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(cases)), [f"{shape}, {prompt}" for shape, prompt in cases])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=len(COLOURS), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
