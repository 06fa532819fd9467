"""Stockroom: a small inventory service."""
