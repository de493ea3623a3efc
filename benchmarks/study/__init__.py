"""Studies: tables of configs, run one after another, and the page that their results make.

    python -m benchmarks.study headline --data datasets/lookalikes
    python -m benchmarks.study --render

See docs/RESULTS.md, which `--render` writes.
"""
