"""Kinds of content: one module each."""
