"""LangChain's standard tests of vector stores, on langchain-qdrant and a server of ours.

    pip install -r requirements.txt
    ROXANNE=path/to/roxanne pytest -p no:asyncio test_langchain.py
"""

import os

import pytest
from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from pydantic import ValidationError
from qdrant_client import QdrantClient, models
from serving import serving

# The async tests run with anyio's plugin, which needs no setting; pytest-asyncio wants one, so it is left out above.
pytestmark = pytest.mark.anyio
NO_ID = "langchain-qdrant sends null for the id of a document without one where another document has one; its client refuses that"


class Store(QdrantVectorStore):
    """langchain-qdrant leaves `Document.id` empty and says the point's id and its collection in the metadata. The tests look at
    `Document.id` and at the metadata as they were written, so they are put there. Ids that it makes are UUIDs without hyphens;
    they come back with them, from Qdrant as from us."""

    @classmethod
    def _document_from_point(cls, *arguments):
        found = super()._document_from_point(*arguments)
        metadata = dict(found.metadata)
        del metadata["_collection_name"]
        point = str(metadata.pop("_id")).replace("-", "")
        return Document(id=point, page_content=found.page_content, metadata=metadata)


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(os.environ["ROXANNE"], tmp_path_factory.mktemp("data")) as url:
        yield url


class TestQdrantVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, url):
        client = QdrantClient(url=url, prefer_grpc=False, timeout=30)
        embedding = self.get_embeddings()
        size = len(embedding.embed_query("a text"))
        client.create_collection("standard", vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE))
        try:
            yield Store(client=client, collection_name="standard", embedding=embedding)
        finally:
            client.delete_collection("standard")
            client.close()

    @pytest.mark.xfail(reason=NO_ID, raises=ValidationError, strict=True)
    def test_add_documents_with_existing_ids(self, vectorstore):
        super().test_add_documents_with_existing_ids(vectorstore)

    @pytest.mark.xfail(reason=NO_ID, raises=ValidationError, strict=True)
    async def test_add_documents_with_existing_ids_async(self, vectorstore):
        await super().test_add_documents_with_existing_ids_async(vectorstore)
