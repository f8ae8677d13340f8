"""The same operations, faster on a CPU or a GPU, each tested against its plain form."""
