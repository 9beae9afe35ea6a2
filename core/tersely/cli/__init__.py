"""The command line: the program itself in this folder, its commands in `commands` and `plugins`.

Private: import public names from `tersely`.
"""
