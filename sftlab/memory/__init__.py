"""The memory of training: counted, planned, measured and limited. All results are bytes.

count      weights, gradients, optimizer state, by formula; shares of a model that are trained
plan       a training step before it is run, from shapes alone
measure    the same step, measured
limit      a process that may hold only so much
shapes     real models as configurations without weights
"""
