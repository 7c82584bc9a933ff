"""Replay: another generation is built beside the live one, compared with it, and promoted."""
