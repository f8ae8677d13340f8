"""What the replication needs beside `chslib`: data, compared networks, training, evidence, analyses, figures."""
