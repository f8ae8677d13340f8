"""From a number of the paper, by way of records and a spread, to a verdict, a table cell and a sentence."""
