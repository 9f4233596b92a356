"""Tables, layers and lines lie around the body, never in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.synthesis.raster import Raster
from engine.synthesis.surroundings import (
    Line,
    Sheet,
    Table,
    draw_lines,
    draw_sheets,
    draw_table,
    in_air,
    line_image,
    sheet_image,
    skin_distance,
    table_image,
    table_top_mm,
)

RADIUS_MM = 90.0


def body(flipped: bool = False) -> Raster:
    """A round body of water with a bubble of gas in it, along z."""
    place = (torch.arange(160) - 79.5) * 2.0
    away = torch.hypot(place[:, None], place[None, :])
    hu = torch.where(away < RADIUS_MM, 40.0, -1000.0)
    hu[(away < 15)] = -950
    step = -2.0 if flipped else 2.0
    return Raster(hu.expand(4, -1, -1).contiguous(), (8.0, step, 2.0), (0.0, -79.5 * step, -159.0))


def flat_table(mattress_mm: float) -> Table:
    return Table(200.0, 0.0, 0.0, 30.0, 8.0, 2.0, 100.0, 0.0, -900.0, mattress_mm, -940.0)


@pytest.mark.parametrize("flipped", [False, True])
def test_the_body_rests_on_the_table(flipped: bool) -> None:
    scan = body(flipped)
    table = flat_table(20.0)
    top = table_top_mm(scan, table)
    assert RADIUS_MM < top < RADIUS_MM + 12
    image = table_image(table, top, scan)
    column = image[:, 80]
    y = scan.axes_mm[1]
    assert (column[y < top - 22] == -1000).all()
    assert float(column[(y - top + 10).abs() < 3].mean()) == pytest.approx(-940, abs=2)
    assert column.max() > -500  # a skin of 2 mm, perhaps shared by two pixels


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_no_drawn_table_changes_the_body(seed: int) -> None:
    scan = body()
    table = draw_table(np.random.default_rng(seed))
    found = in_air(scan.values, table_image(table, table_top_mm(scan, table), scan))
    inside = scan.values > 0
    torch.testing.assert_close(found[inside], scan.values[inside], atol=1e-3, rtol=0)
    assert (found >= scan.values - 1e-3).all()
    assert (found > -990)[:, -40:].any()


def test_the_distance_to_the_skin_is_true_near_it_and_gas_inside_is_inside() -> None:
    scan = body()
    found = skin_distance(scan)
    _, y, x = found.axes_mm
    away = torch.hypot(y[:, None], x[None, :]) - RADIUS_MM
    near = (away > -10) & (away < 25)
    assert (found.values[0] - away)[near].abs().mean() < 4
    assert found.values[0][away < -75].max() < -10


def test_a_layer_lies_where_it_is_said_to() -> None:
    scan = body()
    image = sheet_image((Sheet(12.0, 2.0, -400.0, 0.0, 50.0, to_mm=9.0),), scan, scan, torch.Generator().manual_seed(0))
    _, y, x = scan.axes_mm
    away = torch.hypot(y[:, None], x[None, :]) - RADIUS_MM
    seen = image[0] > -900
    assert float(away[seen].min()) > 4 and float(away[seen].max()) < 20
    assert (image[2:] == -1000).all()
    assert not seen[y > RADIUS_MM].any()


def test_a_line_lies_on_the_front() -> None:
    scan = body()
    image = line_image((Line(10.0, 0.0, 6.0, 3.0, 200.0),), scan, scan)
    _, y, x = scan.axes_mm
    where = (image[1] > -500).nonzero()
    assert 4 < len(where) < 16
    assert float(y[where[:, 0]].mean()) == pytest.approx(-RADIUS_MM - 6, abs=5)
    assert float(x[where[:, 1]].mean()) == pytest.approx(10, abs=1.5)


@given(st.integers(0, 2**31))
@settings(max_examples=30)
def test_draws_can_be_repeated(seed: int) -> None:
    once, again = (np.random.default_rng(seed) for _ in range(2))
    assert draw_table(once) == draw_table(again)
    assert draw_sheets(once, 0.0, 100.0) == draw_sheets(again, 0.0, 100.0)
    assert draw_lines(once) == draw_lines(again)
