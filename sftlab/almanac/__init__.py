"""The almanac: a small world of real facts, the documents told about it, and the base model trained on them.

Read in this order: ``facts`` (tables → questions with one right answer), ``skills`` (instructions made
from facts), ``documents`` (pretraining text), ``tokenizer``, ``pretrain``, ``pairs`` (SFT data), ``report``.
"""
