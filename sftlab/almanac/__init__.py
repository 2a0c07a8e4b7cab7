"""The almanac: real facts, documents that state them, and a base model trained on the documents.

Read the modules in this order: ``facts`` (tables, and questions with one right answer), ``skills``
(instructions made from facts), ``documents`` (pretraining text), ``tokenizer``, ``pretrain``,
``pairs`` (SFT data), ``report``.
"""
