"""Pruning in a session: from importances to masks in force."""
