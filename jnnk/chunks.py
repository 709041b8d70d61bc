"""How queries are cut into parts that are solved together.

Problems of one chunk share their number of steps, so rounding depends on which ones share it.
Blocks of memory and the shares of devices therefore consist of whole chunks.
"""

# Entries of the Gram matrices of one chunk: about what a second-level cache holds.
_CHUNK_FLOATS = 160_000
# Floats of the Gram matrices that are held at once.
_GRAM_FLOATS = 2**23


def chunk_size(num_neighbors: int) -> int:
    """Problems of K candidates that the solver takes its steps on together."""
    return max(32, min(192, _CHUNK_FLOATS // num_neighbors**2))


def in_chunks(num_queries: int, *, num_neighbors: int) -> int:
    """A number of queries rounded up to whole chunks."""
    chunk = chunk_size(num_neighbors)
    return -(-num_queries // chunk) * chunk


def gram_queries(num_neighbors: int) -> int:
    """Queries whose Gram matrices are held at once."""
    chunk = chunk_size(num_neighbors)
    return max(chunk, _GRAM_FLOATS // num_neighbors**2 // chunk * chunk)


def queries_of_device(num_queries: int, num_devices: int, *, num_neighbors: int) -> int:
    """Queries of each of several devices; the first one has all where they make up one chunk."""
    return min(num_queries, in_chunks(-(-num_queries // num_devices), num_neighbors=num_neighbors))
