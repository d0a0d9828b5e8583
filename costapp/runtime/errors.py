"""Why a start was refused."""


class StartError(Exception):
    """One sentence for the person at the keyboard: what is wrong, and what to do about it."""
