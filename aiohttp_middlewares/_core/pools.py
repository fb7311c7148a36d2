"""Of redis-py: what its pools of connections say."""

#: Between two tries to get a connection from a pool that others have emptied:
#: seconds.
PAUSE = 0.005


def is_empty_pool(err: Exception) -> bool:
    """Whether all connections are in use: that is no outage."""
    # Up to 7.0 a pool raises a mere ConnectionError, and one that waits itself
    # still does.
    return type(err).__name__ == "MaxConnectionsError" or str(err) in (
        "Too many connections",
        "No connection available.",
    )
