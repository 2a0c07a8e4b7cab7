"""Speed, measured: `make bench` (python -m tools.benchmarks) and `make bench-notebooks`.

All contenders take their turns in one run, so that whatever else the machine does meets each of
them. Nothing here judges a time: figures are written to data/results/bench.json and drawn.
"""
