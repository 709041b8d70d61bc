"""Checkpoints by orbax: one per epoch, the latest and the chosen ones kept."""

import errno
import os
import pathlib
from collections.abc import Collection
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from jnnk._core.errors import InputError, is_out_of_memory
from jnnk.files.safe_files import naming, opened_folder, refuse_links
from jnnk.training import TrainState


class Checkpoints:
    """The checkpoints of one training run, numbered by epoch.

    A save is finished or it never was: orbax commits a checkpoint in one step, and what a kill
    leaves behind is cleared away when the folder is next opened for writing.

    Args:
        folder: where they lie; none of its parts may be a link, nor anything in it.
        keep: epochs kept for good; of all others only the latest survives.
        read_only: changes nothing, so that the folder need not be writable.

    Raises:
        InputError: for a link, or if the folder cannot be read as one of checkpoints.
        OSError: if it cannot be written.
    """

    def __init__(
        self, folder: pathlib.Path, *, keep: Collection[int] = (), read_only: bool = False
    ):
        self.folder = folder.absolute()
        self._manager = None
        if read_only and not folder.is_dir():
            return
        with naming(self.folder), opened_folder(self.folder, make=not read_only):
            refuse_links(self.folder)
        policy = AnyPreservationPolicy([LatestN(1), CustomSteps(sorted(keep))])
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False,
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            preservation_policy=None if read_only else policy,
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
            self.epochs()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from error
        except Exception as error:  # orbax raises many types for a damaged folder
            raise InputError(
                f"{self.folder}: cannot be read as a folder of checkpoints ({_reason(error)})"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def epochs(self) -> list[int]:
        """The epochs of which a finished checkpoint is here, ascending."""
        return [] if self._manager is None else sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The last epoch saved, or None."""
        return max(self.epochs(), default=None)

    def save(self, epoch: int, state: Any) -> None:
        """Saves a pytree of arrays; returns when it is on disk.

        Of several processes all must call it, with arrays that lie on the devices of all.

        Raises:
            OSError: if there is no space left; the checkpoints before stay as they were.
        """
        path = str(self.folder / str(epoch))
        assert self._manager is not None, "opened for reading"
        try:
            self._manager.save(epoch, args=ocp.args.StandardSave(_as_written(state)))
        except OSError as error:  # orbax' own, which need not name the file
            raise OSError(error.errno, error.strerror, path) from error
        except ValueError as error:  # tensorstore's, whatever the reason
            for number in (errno.ENOSPC, errno.EDQUOT):
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number), path) from error
            raise

    def restore(self, epoch: int, like: Any) -> Any:
        """The state saved at an epoch, on the first device; of several processes on all of theirs.

        Args:
            epoch: one of :meth:`epochs`.
            like: a pytree of arrays or ``jax.ShapeDtypeStruct`` of the same tree, shapes, dtypes.

        Raises:
            InputError: if there is none, or it does not fit or cannot be read.
        """
        if self._manager is None or epoch not in self.epochs():
            raise InputError(f"{self.folder}: no checkpoint of epoch {epoch}, only {self.epochs()}")
        if jax.process_count() == 1:
            where = SingleDeviceSharding(cast(list[Any], jax.local_devices())[0])
        else:
            where = NamedSharding(Mesh(jax.devices(), ("all",)), PartitionSpec())

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

        like = jax.tree.map(placed, like)
        try:
            found = self._manager.restore(epoch, args=ocp.args.StandardRestore(_as_written(like)))
            return _as_read(found, like)
        except Exception as error:  # orbax and tensorstore raise many types for a damaged file
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{self.folder / str(epoch)}: cannot read this checkpoint ({_reason(error)}); "
                "delete its folder to go on from an earlier one"
            ) from error


def _as_written(state: Any) -> Any:
    """A state in the layout of version 0.1, alone or in a tuple.

    What is frozen lies beside the optimiser's state; where nothing is, there is no such entry.
    """
    if type(state) is tuple:
        return tuple(_as_written(each) for each in cast(tuple[Any, ...], state))
    if not isinstance(state, TrainState):
        return state
    fields = state._asdict()
    trainable = fields.pop("trainable")
    if trainable is not None:
        fields["opt_state"] = {"inner": state.opt_state, "trainable": trainable}
    return fields


def _as_read(found: Any, like: Any) -> Any:
    """What was read by the layout of `_as_written`, as a state like the given one."""
    if type(like) is tuple:
        parts = cast(tuple[Any, ...], like)
        return tuple(_as_read(*each) for each in zip(found, parts, strict=True))
    if not isinstance(like, TrainState):
        return found
    if like.trainable is None:
        return TrainState(**found)
    optimizer = found["opt_state"]
    found = found | {"opt_state": optimizer["inner"], "trainable": optimizer["trainable"]}
    return TrainState(**found)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
