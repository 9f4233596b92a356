"""What the listener accepts: every storage SOP class, in every transfer syntax.

An object that is no CT is stored and parked later with a reason; bouncing it would make the PACS drop the study.
"""

from __future__ import annotations

from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, register_uid
from pynetdicom.presentation import PresentationContext, VerificationPresentationContexts
from pynetdicom.service_class import StorageServiceClass

# Retired, and so unknown to pynetdicom, but still in archives (PS3.6 Table A-1). A peer proposes them beside the CT.
RETIRED_STORAGE_CLASSES: tuple[str, ...] = (
    "1.2.840.10008.5.1.4.1.1.3",  # Ultrasound Multi-frame Image
    "1.2.840.10008.5.1.4.1.1.5",  # Nuclear Medicine Image
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image
    "1.2.840.10008.5.1.4.1.1.8",  # Standalone Overlay
    "1.2.840.10008.5.1.4.1.1.9",  # Standalone Curve
    "1.2.840.10008.5.1.4.1.1.9.1",  # Waveform (Trial)
    "1.2.840.10008.5.1.4.1.1.10",  # Standalone Modality LUT
    "1.2.840.10008.5.1.4.1.1.11",  # Standalone VOI LUT
    "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane Image
    "1.2.840.10008.5.1.4.1.1.77.1",  # VL Image (Trial)
    "1.2.840.10008.5.1.4.1.1.77.2",  # VL Multi-frame Image (Trial)
    "1.2.840.10008.5.1.4.1.1.88.1",  # Text SR (Trial)
    "1.2.840.10008.5.1.4.1.1.88.2",  # Audio SR (Trial)
    "1.2.840.10008.5.1.4.1.1.88.3",  # Detail SR (Trial)
    "1.2.840.10008.5.1.4.1.1.88.4",  # Comprehensive SR (Trial)
    "1.2.840.10008.5.1.4.1.1.129",  # Standalone PET Curve
)


def transfer_syntaxes() -> list[str]:
    """Every transfer syntax whose header pydicom reads and that carries its pixels with it, in our order of preference.

    JPIP leaves the pixels at the sender, so that there is nothing to keep.

    The order decides only where a peer offers several in one presentation context. Explicit VR comes first, because
    it keeps the VR of private elements; a compressed file is offered alone by the peers we know, and taken as it is.
    """
    first: list[str] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    return first + [uid for uid in ALL_TRANSFER_SYNTAXES if uid not in first and _kept_whole(UID(uid))]


def _kept_whole(syntax: UID) -> bool:
    return syntax in AllTransferSyntaxes and "JPIP" not in syntax.name


def accepted_contexts() -> list[PresentationContext]:
    """The presentation contexts of a Storage SCP that takes everything, and of a Verification SCP."""
    for uid in RETIRED_STORAGE_CLASSES:
        register_uid(uid, UID(uid).keyword, StorageServiceClass)
    current = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    syntaxes = transfer_syntaxes()
    uids = dict.fromkeys([*current, *RETIRED_STORAGE_CLASSES])
    return [*VerificationPresentationContexts, *(build_context(uid, syntaxes) for uid in uids)]
