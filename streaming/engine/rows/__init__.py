"""Interprets a pipeline over rows, for few events: dicts of texts and exact integers, and no frame.

In a row a timestamp is its microseconds, a decimal its ten-thousandths.
"""
