"""The almanac: a small world of real facts, documents told about it, a base model trained on them.

Read in this order: ``facts`` (tables → questions with one right answer), ``skills`` (instructions
made from facts), ``documents`` (pretraining text), ``tokenizer``, ``pretrain``, ``pairs`` (SFT
data), ``report``.
"""
