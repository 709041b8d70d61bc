"""Where the points are: all on one device, or in shares that are passed round a ring of devices."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax

Share = TypeVar("Share")
Kept = TypeVar("Kept")


class Shortlist(NamedTuple):
    """Candidates, W of them for each query, still to be ranked.

    Attributes:
        nearness: (B, W), descending, what they were chosen by, ties by index: estimates or squares
            of distances, negative. At most ``-shortlists.NONE`` where there are fewer.
        indices: int32 (B, W).
    """

    nearness: jax.Array
    indices: jax.Array


class Ring(NamedTuple):
    """The devices that share the points, inside `jax.shard_map`; by default this one has all.

    Attributes:
        axis: the axis of the mesh along which the points are shared, in the order of the devices.
        mesh_axes: all axes of the mesh. Its devices take as many trips: on a CPU each waits for all
            others whenever points are passed on, also for those of other rings.
    """

    axis: str | None = None
    mesh_axes: tuple[str, ...] = ()

    def total(self, part: jax.Array) -> jax.Array:
        """The sum of the parts of the devices that share the points."""
        return part if self.axis is None else typed_jax.psum(part, self.axis)

    def largest(self, part: jax.Array) -> jax.Array:
        """The largest of their parts."""
        return part if self.axis is None else typed_jax.pmax(part, self.axis)

    def any(self, flag: jax.Array) -> jax.Array:
        """Whether a flag () is up on any device of the mesh."""
        if not self.mesh_axes:
            return flag
        return typed_jax.pmax(flag.astype(jnp.int32), self.mesh_axes) > 0

    def shortlist(
        self, list_of: Callable[[Share, jax.Array], Shortlist], own: Share, *, share: int
    ) -> Shortlist:
        """The best candidates of all points: the shortlists of the shares, joined.

        Args:
            list_of: from the pytree of a share and the number of its first point.
            own: the share of this device.
            share: points of each device.
        """
        if self.axis is None:
            return list_of(own, jnp.int32(0))

        def join(kept: Shortlist, met: Share, start: jax.Array) -> Shortlist:
            found = list_of(met, start)
            nearness, indices = (
                jnp.concatenate(pair, axis=1) for pair in zip(kept, found, strict=True)
            )
            squares, indices = jax.lax.sort((-nearness, indices), num_keys=2)
            length = indices.shape[1] // 2
            return Shortlist(-squares[:, :length], indices[:, :length])

        like: Shortlist = jax.eval_shape(list_of, own, jnp.int32(0))
        nothing = Shortlist(
            jnp.full(like.nearness.shape, -jnp.inf, like.nearness.dtype),
            jnp.zeros(like.indices.shape, jnp.int32),
        )
        return self._passed_round(join, nothing, own, share)

    def rows(self, indices: jax.Array, own: Share, *, share: int, none: float = 0) -> Share:
        """The rows (B, W, ...) of the points of indices (B, W), ``none`` for those of none."""

        def here_alone(rows: jax.Array) -> jax.Array:
            return jnp.take(rows, indices, axis=0, mode="clip")

        if self.axis is None:
            return jax.tree.map(here_alone, own)

        def pick(kept: Share, met: Share, start: jax.Array) -> Share:
            places = indices - start
            here = ((indices >= 0) & (places >= 0) & (places < share))[:, :, None]
            places = jnp.clip(places, 0, share - 1)

            def choose(rows: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(here, rows[places], old)

            return jax.tree.map(choose, met, kept)

        def none_of(rows: jax.Array) -> jax.Array:
            return jnp.full((*indices.shape, rows.shape[1]), none, rows.dtype)

        return self._passed_round(pick, jax.tree.map(none_of, own), own, share)

    def _passed_round(
        self,
        visit: Callable[[Kept, Share, jax.Array], Kept],
        kept: Kept,
        own: Share,
        share: int,
    ) -> Kept:
        """What ``visit(kept, share, number of its first point)`` makes of all, one by one."""
        num_devices: int = jax.lax.axis_size(self.axis)
        onwards = [(device, (device + 1) % num_devices) for device in range(num_devices)]

        def step(carry: tuple[Share, Kept], number: jax.Array) -> tuple[tuple[Share, Kept], None]:
            met, kept = carry
            # Sent before it is visited, so that the two can go on at the same time.
            following: Share = jax.lax.ppermute(met, self.axis, onwards)
            owner: jax.Array = (jax.lax.axis_index(self.axis) - number) % num_devices
            return (following, visit(kept, met, owner.astype(jnp.int32) * share)), None

        steps = jnp.arange(num_devices, dtype=jnp.int32)
        (_, kept), _ = jax.lax.scan(step, (own, kept), steps)
        return kept
