"""Looking into a network while it answers, and leaving it as it was: every hook and every switch lives in a `with` block.

Shapes: B images, H x W pixels, D channels, h x w feature map, N tokens, L layers, A heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the length of a block; then every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def cut_at(module: nn.Module) -> Iterator[list[Tensor]]:
    """Read the output of a module in a forward pass, and let the graph of gradients begin there.

    What lies before it is computed without a graph, so a gradient of the output costs the layers after it alone. Of
    a module that is called several times the last call counts.

    Yields:
        a list that holds the output after the pass, detached from what comes before.
    """
    found: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"gives {type(output).__name__}, no tensor")
        torch.set_grad_enabled(True)  # until the end of the no_grad block below
        found[:] = [output.detach().requires_grad_()]
        return found[0].clone()  # what follows may work in place

    handle = module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            yield found
    finally:
        handle.remove()


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Attention computed step by step for the length of a block: the fused kernel never shows its weights."""
    fused = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    try:
        for module in fused:
            cast(Any, module).fused_attn = False
        yield
    finally:
        for module in fused:
            cast(Any, module).fused_attn = True


@contextmanager
def attention_of(model: nn.Module, layers: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Read the attention weights of layers in a forward pass.

    Args:
        model: in evaluation mode.
        layers: attention modules of timm; each drops out of its weights by `attn_drop`, where they are read.

    Yields:
        a list that holds (B, A, N, N) for each layer after the pass, rows summing to 1, part of the graph.
    """
    found: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(unfused(model))
        for layer in layers:
            drop = cast(nn.Module, layer.attn_drop)
            handle = drop.register_forward_hook(lambda _module, _inputs, output: found.append(output))
            stack.callback(handle.remove)
        yield found


@contextmanager
def pooling_of(pool: nn.Module) -> Iterator[list[Tensor]]:
    """Read with which weights an attention pooling takes its tokens, from its queries and keys.

    Yields:
        a list that holds query (B, A, 1, d) and key (B, A, N, d) after the pass.
    """
    found: list[Tensor] = []
    with ExitStack() as stack:
        for name in ("q_norm", "k_norm"):
            handle = pool.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: found.append(output))
            stack.callback(handle.remove)
        yield found
