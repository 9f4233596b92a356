"""The listener takes multi-frame CT as it takes single images."""

from __future__ import annotations

import pytest
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from node.storage_classes import accepted_contexts


@pytest.mark.parametrize("kind", [EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage])
def test_multi_frame_ct_is_accepted_in_every_transfer_syntax_of_ct(kind: str) -> None:
    syntaxes = {str(context.abstract_syntax): context.transfer_syntax for context in accepted_contexts()}
    assert syntaxes[kind] == syntaxes[CTImageStorage]
    assert len(syntaxes[kind] or []) > 20
