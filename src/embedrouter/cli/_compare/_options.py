"""The options that say what models are compared on."""

from dataclasses import dataclass
from typing import Annotated

import typer

from ...comparison import Questions, read_questions


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What models are compared on; a command takes this class as one parameter (see ``expand_bundles``)."""

    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="Documents: a folder as BEIR and MTEB have it, a file of JSON lines, JSON, CSV, TSV or Parquet, or "
            "the folder or address of a vector store.",
            show_default=False,
        ),
    ]
    queries: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERIES",
            help="Queries: a file of the same kinds, or one query a line. Without any they are made from documents.",
            show_default=False,
        ),
    ] = None
    qrels: Annotated[
        str | None,
        typer.Option("--qrels", metavar="FILE", help="Judgements, as TREC, BEIR or MTEB write them, JSON or CSV."),
    ] = None
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="NAME", help="The field with the text of a document; several are joined."),
    ] = None
    query_fields: Annotated[
        list[str] | None, typer.Option("--query-field", metavar="NAME", help="The same for queries.")
    ] = None
    id_field: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="The field with the id of a document.")
    ] = None
    query_id_field: Annotated[
        str | None, typer.Option("--query-id", metavar="NAME", help="The field with the id of a query.")
    ] = None
    join: Annotated[
        str,
        typer.Option("--join", metavar="TEXT", help="What is put between several fields; a blank.", show_default=False),
    ] = " "
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="Which judgements of a folder: qrels/NAME.tsv.")
    ] = "test"
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Of several in a store.")] = (
        None
    )
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="A sample of the documents, answers first.")
    ] = None
    query_limit: Annotated[
        int | None, typer.Option("--query-limit", metavar="N", min=1, help="A sample of the queries.")
    ] = None
    known: Annotated[
        int | None, typer.Option("--known-items", metavar="N", min=1, help="How many queries are made; 300.")
    ] = None
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of samples and of queries that are made.")] = 0

    def read(self) -> Questions:
        """Read documents, queries and judgements."""
        return read_questions(
            self.corpus,
            self.queries,
            self.qrels,
            fields=self.fields,
            query_fields=self.query_fields,
            id_field=self.id_field,
            query_id_field=self.query_id_field,
            join=self.join.replace(r"\n", "\n").replace(r"\t", "\t"),
            split=self.split,
            collection=self.collection,
            limit=self.limit,
            query_limit=self.query_limit,
            known=self.known,
            seed=self.seed,
        )
