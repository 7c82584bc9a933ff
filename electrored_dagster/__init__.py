"""Conducts what is periodic or asked for, and shows the platform as one graph; holds no business logic."""
