"""What ``compare.py`` and ``degradation.py`` are made of: servers, loads, figures and reports."""
