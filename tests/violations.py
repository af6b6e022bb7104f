"""What the campaigns of tests/faults and tests/hostile raise."""


class ViolationError(Exception):
    """What a command did that none may do, whatever happens to it or is given to it."""
