"""The 2015 study's experiment on the site's own cluster: nodes x cores x threads, each repeated.

plan.py --one run after another--> study.py (a daemon of its own, the normal path) --> runs.jsonl
runs.jsonl --> figures.py (medians, spread) --> chart.py (SVG), candidate.py (a policy with its tests)
"""
