"""The only code that waits, steps a loop or hooks into a runtime's life cycle."""
