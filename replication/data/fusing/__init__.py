"""Volumes -> one slice store, and which volumes show the same scan (Sec. 4.1, Fig. 8)."""
