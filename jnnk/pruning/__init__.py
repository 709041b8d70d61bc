"""Scores of conv kernels and channels, masks made from them, optimisers under masks."""

from jnnk.pruning._analysis import (
    EigenvalueKinds,
    Intersection,
    agreement,
    chance_of_real,
    eigenvalue_kinds,
    has_real_eigenvalues,
    network_magnitudes,
    pruned_by_layer,
    pruned_kernels,
    pruned_share,
    pruning_score,
    whole_network,
)
from jnnk.pruning._authors_modes import AuthorsMode, authors_mode
from jnnk.pruning._channels import (
    CHANNEL_CRITERIA,
    ChannelView,
    channel_masks,
    prunable_groups,
)
from jnnk.pruning._linalg.eigenvalues import Eigenvalues, determinant, eigenvalues, gram_determinant
from jnnk.pruning._linalg.singular_values import singular_values
from jnnk.pruning._mask_files import load_masks, save_masks
from jnnk.pruning._masked_optimizer import keep_pruned_zero
from jnnk.pruning._masks import apply_masks, make_masks, masks_from_layers
from jnnk.pruning._schedules import Schedule, cubic_schedule
from jnnk.pruning._scores import CRITERIA, kernel_scores
from jnnk.pruning._selection import Contribution, KeepRate, Selection, Threshold
from jnnk.pruning._summary import LayerSummary, MaskSummary, summarize
from jnnk.pruning._taylor import taylor_channel_scores, taylor_scores

__all__ = [
    "CHANNEL_CRITERIA",
    "CRITERIA",
    "AuthorsMode",
    "ChannelView",
    "Contribution",
    "EigenvalueKinds",
    "Eigenvalues",
    "Intersection",
    "KeepRate",
    "LayerSummary",
    "MaskSummary",
    "Schedule",
    "Selection",
    "Threshold",
    "agreement",
    "apply_masks",
    "authors_mode",
    "chance_of_real",
    "channel_masks",
    "cubic_schedule",
    "determinant",
    "eigenvalue_kinds",
    "eigenvalues",
    "gram_determinant",
    "has_real_eigenvalues",
    "keep_pruned_zero",
    "kernel_scores",
    "load_masks",
    "make_masks",
    "masks_from_layers",
    "network_magnitudes",
    "prunable_groups",
    "pruned_by_layer",
    "pruned_kernels",
    "pruned_share",
    "pruning_score",
    "save_masks",
    "singular_values",
    "summarize",
    "taylor_channel_scores",
    "taylor_scores",
    "whole_network",
]
