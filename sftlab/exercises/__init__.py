"""One folder for each exercise: ``exNN_name`` holds all that belongs to notebook NN.

    check.py        what the student writes: the reference, cases, and the mistakes that are known
    answers.py      right answers, and wrong ones that a general rule refuses, for the tests
    experiment.py   what the notebook measures a part of live, and `sftlab record` all of
    explorer.py     controls over a picture
    plots.py        the notebook's figures

An experiment says ``RECORD = "name"`` and has two functions: ``settings()`` lists the runs, each a
dictionary of plain values, and ``run(**settings)`` measures one of them. `sftlab record NAME` writes
them into ``data/results/NAME.json``; notebooks call the same functions.
"""
