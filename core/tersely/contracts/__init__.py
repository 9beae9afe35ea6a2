"""What plugins implement: public, typed protocols and the values they are handed."""
