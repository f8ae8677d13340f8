"""Which record answers a number, where a run was trained by several budgets (register row 69; written before the cascade
had a record of thirty epochs):

* The paper's size, trained to its end (profile `paper`): all its epochs, or stopped early by patience. A training that its
  clock cut short answers nothing.
* Else the longest at 128x128: `cpu-30`, then `cpu-long`, then `cpu`.
* Else what there is: `cpu-256`.

The score decides nothing here, nor does the number of seeds: a row of one seed and thirty epochs goes before three seeds of
five epochs. The spread of one run is still pooled from the rows that have several seeds, whatever their budget
(`replication.evidence.verdicts`). On new patients a budget with more folds goes first, and this order among equals.

What is compared with one another is of one budget. A claim is decided within the first of these that has every run it names
under a common seed, and never by a cascade of thirty epochs beside rivals of five. So are differences between rows
(`replication.evidence.comparisons.scores_of`), within the one that has most of a table's rows under both protocols.
"""

ANSWERING = ("paper", "cpu-30", "cpu-long", "cpu", "cpu-256")
