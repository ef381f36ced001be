"""What an archive gave in, embedded radiographs and reasons for leaving others out out.

Legend: n radiographs, D embedding.
"""

import asyncio
from dataclasses import dataclass

from index_builder.crawl_state import Held, LeftOut
from index_builder.embedder import Embedder
from index_builder.fetch import File, Visit
from index_builder.pseudonyms import Pseudonyms
from xray.errors import InputError, OutOfScopeError
from xray.gallery.gallery import Gallery
from xray.gallery.vector_index import EmbeddingArray
from xray.images.decoding.decoder_pool import DecoderPool
from xray.images.radiograph import Radiograph

BURNED_IN, ANOTHER = "BurnedInAnnotation", "AnotherInstance"
"""Reasons for which a radiograph is left out, beside the names of errors."""


@dataclass(frozen=True)
class Reader:
    """Decodes in processes apart, for files may be anything, and embeds here.

    Attributes:
        like: what is out of this gallery's scope is left out.
    """

    embedder: Embedder
    like: Gallery
    names: Pseudonyms
    apart: DecoderPool

    async def read(self, visit: Visit) -> list[Held | LeftOut]:
        """The new radiographs of a visit, each embedded or left out with a reason."""
        outcomes = await asyncio.gather(*(self._decoded(file) for file in visit.files))
        predictor = self.embedder.predictor
        prepared = [predictor.prepare(each) for each in outcomes if isinstance(each, Radiograph)]
        embeddings_nD = iter(self.embedder.embed(prepared))
        return [
            LeftOut(file.instance, visit.study, outcome)
            if isinstance(outcome, str)
            else self._embedded(file.instance, visit.study, outcome, next(embeddings_nD))
            for file, outcome in zip(visit.files, outcomes, strict=True)
        ]

    async def _decoded(self, file: File) -> Radiograph | str:
        """A radiograph that may be indexed, or why there is none."""
        try:
            radiograph = await self.apart.decode(file.data)
        except InputError as error:
            return type(error).__name__
        facts = radiograph.dicom
        if facts is None or facts.instance_uid is None or self.names.name(facts.instance_uid) != file.instance:
            return ANOTHER
        return BURNED_IN if facts.burned_in else radiograph

    def _embedded(
        self, instance: str, study: str, radiograph: Radiograph, embedding_D: EmbeddingArray
    ) -> Held | LeftOut:
        if not self.like.scope(radiograph, embedding_D).inside:
            return LeftOut(instance, study, OutOfScopeError.__name__)
        body_part = radiograph.dicom.body_part if radiograph.dicom else None
        return Held(instance, study, body_part, embedding_D)
