"""The slice store and its splits."""
