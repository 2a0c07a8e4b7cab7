"""The memory of training: computed, planned, measured and limited. All sizes are in bytes.

count      weights, gradients and optimizer state by formula; share of trained weights
plan       the memory of a training step, from shapes alone
measure    the memory of a training step, measured
limit      training in a process with a memory limit
shapes     configurations of real models, without weights
"""
