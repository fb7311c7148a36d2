"""Text in, value out: what strangers write, read in one place.

Pure and linear in the size of the text. No module here knows a request, and
each imports nothing of this package but its neighbours.
"""
