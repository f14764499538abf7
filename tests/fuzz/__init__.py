"""The Python fuzz campaign; see ``run.py``."""
