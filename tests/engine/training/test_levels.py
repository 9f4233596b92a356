"""What tokens and coarse levels learn from."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from stubs.training import tiny

from engine.labels import thigh29
from engine.training.phases import build_network, build_trainee, draw_lattice
from engine.training.preset import NetworkPlan, UnetShape
from engine.training.pyramid import Plain, Pyramid, coarse_loss, shares
from engine.training.tokens import BLOCK, TokenReader, composition, token_loss

COUNT = thigh29().class_count


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
def test_shares_count_every_voxel(seed: int, block: int) -> None:
    classes = np.random.default_rng(seed).integers(0, 5, (2, 1, 16, 16, 32), dtype=np.uint8)
    found = shares(torch.from_numpy(classes), 5, block)
    assert found.shape == (2, 5, 16 // block, 16 // block, 32 // block)
    assert torch.equal(found.sum(1), torch.ones_like(found[:, 0]))
    counts = (found * block**3).sum((2, 3, 4)).long().numpy()
    for number in range(2):
        np.testing.assert_array_equal(counts[number], np.bincount(classes[number].ravel(), minlength=5))


def test_a_block_stands_in_the_token_that_holds_it() -> None:
    classes = torch.zeros((1, 1, 32, 32, 32), dtype=torch.uint8)
    classes[0, 0, 16:20, 4:8, 28:32] = 1  # token (1, 0, 1), block (0, 1, 3) inside it
    found = composition(classes, 2)
    assert found.shape == (1, 8, 64, 2)
    assert found[0, 5, 7, 1] == 1
    assert found[..., 1].sum() == 1


def test_tokens_keep_the_order_of_the_transformer() -> None:
    """A token's embedding depends on its own patch alone; so does the reader's answer before any attention."""
    trainee = build_trainee(tiny(), COUNT).eval()
    assert isinstance(trainee, Pyramid)
    embed = trainee.network.vit.patch_embedding
    image = torch.zeros(1, 1, 32, 32, 32)
    dark = embed(image)
    image[0, 0, 16:20, 4:8, 28:32] = 1
    changed = (embed(image) - dark).abs().sum(-1)[0].nonzero().flatten().tolist()
    assert changed == [5]


def test_the_readers_loss_is_least_where_it_is_right() -> None:
    trainee = build_trainee(tiny(), COUNT)
    assert isinstance(trainee, Pyramid)
    reader = TokenReader(trainee.network.vit, 24, COUNT)
    classes = torch.randint(0, COUNT, (2, 1, 8, 8, 8), dtype=torch.uint8).repeat_interleave(BLOCK, 2)
    classes = classes.repeat_interleave(BLOCK, 3).repeat_interleave(BLOCK, 4)
    wanted = composition(classes, COUNT)
    given_logits = reader(torch.rand(2, 1, 32, 32, 32))
    assert given_logits.shape == wanted.shape
    assert token_loss(wanted * 20, wanted) < 0.01 < token_loss(given_logits, wanted)


def test_the_pyramid_ends_with_what_the_network_alone_would_give() -> None:
    torch.manual_seed(3)
    trainee = build_trainee(tiny(), COUNT).eval()
    assert isinstance(trainee, Pyramid)
    image = torch.rand(1, 1, 32, 32, 32)
    lattice = draw_lattice(np.random.default_rng(2))
    with torch.inference_mode():
        coarse, logits = trainee(image)
        _, sampled = trainee(image, lattice)
        torch.testing.assert_close(logits, trainee.network(image))
    assert [level.shape[-1] for level in coarse] == [4, 8, 16]
    torch.testing.assert_close(sampled, logits[(..., *lattice)])
    assert sampled.shape[2:] == (16, 16, 16)


def test_the_coarse_loss_is_least_where_the_levels_are_right() -> None:
    classes = torch.randint(0, 5, (1, 1, 2, 2, 2), dtype=torch.uint8)
    for axis in (2, 3, 4):
        classes = classes.repeat_interleave(8, axis)
    levels = [shares(classes, 5, block) * 20 for block in (8, 4, 2)]
    assert coarse_loss(levels, shares(classes, 5)) < 0.01
    assert coarse_loss([level.flip(1) for level in levels], shares(classes, 5)) > 1


def test_lattices_reach_every_voxel() -> None:
    rng = np.random.default_rng(0)
    seen = torch.zeros(4, 4, 4)
    for _ in range(100):
        seen[draw_lattice(rng)] = 1
    assert seen.all()


def test_names_of_weights_are_those_that_checkpoints_hold() -> None:
    names = build_trainee(tiny(), COUNT).state_dict()
    assert {name.split(".")[0] for name in names} == {"network", "heads"}
    assert "network.vit.patch_embedding.position_embeddings" in names and "heads.2.bias" in names


def test_a_u_net_has_no_coarse_levels() -> None:
    plan = NetworkPlan(unet=UnetShape(channels=(2, 4), strides=(2,), residual_units=1))
    plain = Plain(build_network(plan, COUNT, (32, 32, 32)))
    image = torch.rand(1, 1, 32, 32, 32)
    coarse, logits = plain(image)
    assert coarse == [] and logits.shape == (1, COUNT, 32, 32, 32)
    lattice = draw_lattice(np.random.default_rng(0))
    torch.testing.assert_close(plain(image, lattice)[1], logits[(..., *lattice)])
