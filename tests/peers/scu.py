"""A Storage SCU that sends whatever it is told to, right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node.standin_pacs import Peer

CT_CONTEXT = (CTImageStorage, ExplicitVRLittleEndian)


def wrap(path: Path, sop_instance: str, body: bytes, sop_class: str = CTImageStorage) -> Path:
    """Put any bytes behind File Meta Information that names any UIDs. Returns the path."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance, 0)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(DicomFileLike(file), meta, enforce_standard=False)
        file.write(body)
    return path


def request(
    peer: Peer, calling_ae: str = "PACS", contexts: Sequence[PresentationContext] = (), called_ae: str | None = None
) -> Association:
    """Ask for an association; by default for CT images in explicit VR little endian."""
    offered = list(contexts) or [build_context(*CT_CONTEXT), build_context("1.2.840.10008.1.1")]
    return AE(ae_title=calling_ae).associate(
        peer.host, peer.port, contexts=offered, ae_title=called_ae or peer.ae_title
    )


@contextmanager
def association(
    peer: Peer, calling_ae: str = "PACS", contexts: Sequence[PresentationContext] = ()
) -> Iterator[Association]:
    """An association that must be accepted, and is released at the end of the block."""
    made = request(peer, calling_ae, contexts)
    assert made.is_established
    try:
        yield made
    finally:
        made.release()


def store(made: Association, path: Path) -> Dataset:
    """C-STORE a file, its bytes as they are. Returns the answer."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    return made.send_c_store(path)
