"""How queries are cut into parts that are solved together.

Problems of one chunk share their number of steps, so rounding depends on which ones share it.
Blocks of memory, and on CPUs the shares of devices, therefore consist of whole chunks.
"""

import jax

# Entries of the Gram matrices of one chunk, and its most problems. On a CPU they are about what a
# second-level cache holds; elsewhere, fewer leave most of the device idle (an H100 solves ten times
# as many problems a second), and more are wasted on the last chunk, which is filled up.
_ON_CPU = 160_000, 192
_ELSEWHERE = 2**22, 4096
# Floats of the Gram matrices that are held at once.
_GRAM_FLOATS = 2**23


def chunk_size(num_neighbors: int) -> int:
    """Problems of K candidates that the solver takes its steps on together, where JAX computes."""
    floats, most = _ON_CPU if jax.default_backend() == "cpu" else _ELSEWHERE
    return max(32, min(most, floats // num_neighbors**2))


def in_chunks(num_queries: int, *, num_neighbors: int) -> int:
    """A number of queries rounded up to whole chunks."""
    chunk = chunk_size(num_neighbors)
    return -(-num_queries // chunk) * chunk


def gram_queries(num_neighbors: int) -> int:
    """Queries whose Gram matrices are held at once."""
    chunk = chunk_size(num_neighbors)
    return max(chunk, _GRAM_FLOATS // num_neighbors**2 // chunk * chunk)


def queries_of_device(num_queries: int, num_devices: int, *, num_neighbors: int) -> int:
    """Queries of each of several devices; the last ones may have fewer, or none.

    On a CPU these are whole chunks, so that rounding does not depend on the number of devices.
    Elsewhere a chunk is long enough to leave devices idle, and the queries are shared evenly.
    """
    share = -(-num_queries // num_devices)
    if jax.default_backend() != "cpu":
        return share
    return min(num_queries, in_chunks(share, num_neighbors=num_neighbors))
