"""The commands, one module each: parse, call, print. No logic, and no torch until a command runs."""
