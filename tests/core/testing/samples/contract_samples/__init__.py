"""The face of a distribution whose plugins keep their contract, or break one check each."""
