"""Which blocks are masked: budgets, selection, groups and alignment."""
