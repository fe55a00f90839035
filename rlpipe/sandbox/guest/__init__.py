"""What runs inside the sandboxes: shipped there as code objects, on the standard library alone, and small.

Nothing of here runs in our own process but the names of the messages and, in tests, the encoding.
"""
