"""The modules of a supernet in faster forms, with the same results."""
