"""Interprets a pipeline over columns, for many events: nothing is done once per event in Python."""
