"""Decodes and embeds radiographs that were fetched from an archive, and skips those that must not be in a gallery.

Legend: n radiographs, D embedding.
"""

import asyncio
from dataclasses import dataclass

from index_builder.crawl_state import IndexedInstance, SkippedInstance
from index_builder.embedder import Embedder
from index_builder.fetch import FetchedFile, FetchedStudy
from index_builder.pseudonyms import Pseudonyms
from xray.errors import InputError, OutOfScopeError
from xray.gallery.vector_index import EmbeddingArray
from xray.images.decoding.decoder_pool import DecoderPool
from xray.images.radiograph import Radiograph
from xray.network.ood import measure_scope

BURNED_IN = "BurnedInAnnotation"
"""Reason to skip a radiograph whose tags say that its pixels show the patient's name."""
WRONG_INSTANCE = "AnotherInstance"
"""Reason to skip a file whose UID differs from the requested one."""


@dataclass(frozen=True)
class DicomEmbedder:
    """Decodes an archive's files in child processes, because they may be hostile, and embeds them in this process.

    Radiographs that are out of the checkpoint's scope are skipped.
    """

    embedder: Embedder
    pseudonyms: Pseudonyms
    decoders: DecoderPool

    async def embed(self, study: FetchedStudy) -> list[IndexedInstance | SkippedInstance]:
        """Embed a study's DICOM files; return each with its embedding or with the reason to skip it."""
        outcomes = await asyncio.gather(*(self._decode(file) for file in study.files))
        predictor = self.embedder.predictor
        prepared = [predictor.prepare(each) for each in outcomes if isinstance(each, Radiograph)]
        embeddings_nD = iter(self.embedder.embed(prepared))
        return [
            SkippedInstance(file.instance, study.study, outcome)
            if isinstance(outcome, str)
            else self._check_scope(file.instance, study.study, outcome, next(embeddings_nD))
            for file, outcome in zip(study.files, outcomes, strict=True)
        ]

    async def _decode(self, file: FetchedFile) -> Radiograph | str:
        """Return a radiograph that may be indexed, or the reason to skip it."""
        try:
            radiograph = await self.decoders.decode(file.data)
        except InputError as error:
            return type(error).__name__
        facts = radiograph.dicom
        if facts is None or facts.instance_uid is None or self.pseudonyms.name(facts.instance_uid) != file.instance:
            return WRONG_INSTANCE
        return BURNED_IN if facts.burned_in else radiograph

    def _check_scope(
        self, instance: str, study: str, radiograph: Radiograph, embedding_D: EmbeddingArray
    ) -> IndexedInstance | SkippedInstance:
        if not measure_scope(radiograph, embedding_D, self.embedder.predictor.limb_classifier).in_scope:
            return SkippedInstance(instance, study, OutOfScopeError.__name__)
        body_part = radiograph.dicom.body_part if radiograph.dicom else None
        return IndexedInstance(instance, study, body_part, embedding_D)
