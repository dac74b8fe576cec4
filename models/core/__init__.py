"""What every method shares: the contract, cards, checkpoints, data sets, stores and network blocks."""
