"""The published archives, fetched, checked and unpacked (Sec. 4.1, Table 1)."""
