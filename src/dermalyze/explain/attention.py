"""Maps from the attention weights of a transformer.

Shapes: B images, C classes, N tokens, L layers, A heads, h x w grid of tokens.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from dermalyze.errors import ModelError
from dermalyze.explain.cams import Answer, Question
from dermalyze.models.watching import attention_of, pooling_of


def attention_layers(net: nn.Module, method: str) -> list[nn.Module]:
    """The attention modules of a transformer whose tokens keep one grid from the first block to the last.

    Raises:
        ModelError: a network without attention, or with attention in windows or between grids.
    """
    name = type(net).__name__
    blocks = getattr(net, "blocks", None)
    layers = [getattr(block, "attn", None) for block in blocks] if isinstance(blocks, nn.ModuleList | nn.Sequential) else []
    good = [layer for layer in layers if isinstance(getattr(layer, "attn_drop", None), nn.Module)]
    if layers and len(good) == len(layers):
        return cast(list[nn.Module], good)
    if any("attention" in type(module).__name__.lower() for module in net.modules()):
        why = "attends in windows or between grids of several sizes, and their weights have no common product"
    else:
        why = "has no attention between all places"
    raise ModelError(f"{method}: {name} {why}; use gradcam")


def seen_attention(question: Question, layers: list[nn.Module]) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Attention weights of each layer (B, A, N, N) and the logits, with their graph; and the weights (B, N) by which tokens
    are pooled where attention does that, else None."""
    net = question.model.backbone.net
    pool = getattr(net, "attn_pool", None)
    with ExitStack() as stack:
        weights = stack.enter_context(attention_of(question.model, layers))
        asked = stack.enter_context(pooling_of(pool)) if isinstance(pool, nn.Module) else []
        stack.enter_context(torch.enable_grad())
        logits_BC = question.answer(question.images.detach().clone().requires_grad_())
    weights, asked = weights[-len(layers) :], asked[-2:]  # of the first image, which a network of two is asked for last
    if not asked:
        return weights, logits_BC, None
    query, key = (tensor.detach() for tensor in asked)
    pooled_BAN = (query * cast(Any, pool).scale @ key.transpose(-2, -1)).softmax(dim=-1)[:, :, 0]
    return weights, logits_BC, pooled_BAN.mean(dim=1)


def with_prefix(weights_BNN: Tensor, tokens: int) -> Tensor:
    """Weights of a layer that came before the class token was added: that token attends to itself alone."""
    missing = tokens - weights_BNN.shape[1]
    if missing == 0:
        return weights_BNN
    whole = torch.eye(tokens, dtype=weights_BNN.dtype, device=weights_BNN.device).repeat(len(weights_BNN), 1, 1)
    whole[:, missing:, missing:] = weights_BNN
    return whole


def read_out(question: Question, flow_BNN: Tensor, pooled_BN: Tensor | None) -> Tensor:
    """(B, h, w) what the pooled token has taken from each place; columns of class token and registers are dropped."""
    net = question.model.backbone.net
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    if pooled_BN is not None:
        row_BN = (pooled_BN[:, None] @ flow_BNN)[:, 0]
    elif str(getattr(net, "global_pool", "token")).startswith("avg") or question.model.head.takes == "map":
        row_BN = flow_BNN[:, prefix:].mean(dim=1)
    else:
        row_BN = flow_BNN[:, 0]
    rows, columns = question.read.grid_px(question.size)
    return row_BN[:, prefix:].reshape(-1, rows, columns)


def multiply(layers_LBNN: list[Tensor]) -> Tensor:
    """(B, N, N) product of the layers, the first applied first.

    >>> half = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    >>> multiply([half, half])[0, 0]
    tensor([0.2500, 0.7500])
    """
    flow = layers_LBNN[0]
    for _, later in pairwise(layers_LBNN):
        flow = later @ flow
    return flow


def rollout(question: Question) -> Answer:
    """Attention rollout: the layers' mean attention with the residual connection, multiplied. The same for every class.

        A'_l = (mean_A A_l + I) / 2,   flow = A'_L ... A'_1

    Raises:
        ModelError: see `attention_layers`.

    Abnar & Zuidema 2020, arXiv:2005.00928
    """
    layers = attention_layers(question.model.backbone.net, "rollout")
    weights, logits_BC, pooled_BN = seen_attention(question, layers)
    tokens = max(one.shape[-1] for one in weights)
    mean = [with_prefix(one.detach().mean(dim=1), tokens) for one in weights]
    eye = torch.eye(tokens, dtype=mean[0].dtype, device=mean[0].device)
    return read_out(question, multiply([(one + eye) / 2 for one in mean]), pooled_BN), logits_BC.detach()


def gradient_attention(question: Question) -> Answer:
    """Attention weighted by its positive gradient for the class, multiplied over the layers.

        A'_l = mean_A relu(d score / d A_l * A_l),   flow_l = flow_(l-1) + A'_l flow_(l-1),   flow_0 = I

    Where attention pools the tokens (SigLIP), its weights are taken as they are.

    Raises:
        ModelError: see `attention_layers`.

    Chefer, Gur & Wolf 2021, arXiv:2103.15679
    """
    layers = attention_layers(question.model.backbone.net, "gradient_attention")
    weights, logits_BC, pooled_BN = seen_attention(question, layers)
    slopes = torch.autograd.grad(question.score(logits_BC), weights)
    tokens = max(one.shape[-1] for one in weights)
    eye = torch.eye(tokens, dtype=logits_BC.dtype, device=logits_BC.device)
    gained = [(slope * one.detach()).relu().mean(dim=1) for slope, one in zip(slopes, weights, strict=True)]
    padded = []
    for one in gained:
        missing = tokens - one.shape[1]
        padded.append(nn.functional.pad(one, (missing, 0, missing, 0)) + eye)
    flow_BNN = multiply(padded)
    if pooled_BN is None and not str(getattr(question.model.backbone.net, "global_pool", "token")).startswith("avg"):
        return read_out(question, flow_BNN, None), logits_BC.detach()
    return read_out(question, flow_BNN - eye, pooled_BN), logits_BC.detach()
