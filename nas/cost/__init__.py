"""What an architecture costs: parameters, operations, memory, time, and a limit on them."""
