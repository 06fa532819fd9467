"""Findings turned into text, one file per medium. Pure functions of their arguments."""
