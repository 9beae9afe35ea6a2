"""Reports and comparisons as HTML pages: templates, style sheet, script and plots.

Private: import public names from `tersely`.
"""
