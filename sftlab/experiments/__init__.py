"""Recorded experiments: what a notebook shows a slice of live, measured over all seeds and settings.

    python -m sftlab.experiments --list
    python -m sftlab.experiments response_only_loss      # writes data/results/response_only_loss.json

One module is one experiment, and its name is the experiment's name. It has two functions:
``settings()`` lists the runs, each a dictionary of plain values, and ``run(**settings)`` measures one
of them. Notebooks call the same functions.
"""
