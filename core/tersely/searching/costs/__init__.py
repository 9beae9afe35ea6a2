"""What compressed models cost: operations, bytes or time, measured or predicted layer by layer.

Private: import public names from `tersely`.
"""
