"""What the first result would wait for is loaded before there is one."""

from __future__ import annotations

from highdicom import _standard_utils as tables

from dicom_io.warm import warm_up


def test_the_tables_of_the_standard_are_read() -> None:
    tables.get_module_attribute_map.cache_clear()
    warm_up()
    assert tables.get_module_attribute_map.cache_info().currsize == 1
