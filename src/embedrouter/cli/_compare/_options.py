"""The options that say what models are compared on."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ...comparison import Questions, holds_questions, read_questions
from .._options import CollectionName, SplitterName, SplitterSettings
from .._texts import MAGIC, TextOptions, Texts


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What models are compared on; a command takes this class as one parameter (see ``expand_bundles``)."""

    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="Documents: a folder as BEIR and MTEB have it; a file of JSON lines, JSON, CSV, TSV or Parquet; the "
            "folder or address of a vector store; or a folder of Markdown, text and web pages.",
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
    relevant_field: Annotated[
        str | None,
        typer.Option("--relevant", metavar="NAME", help="The field of a query with the ids of its documents."),
    ] = None
    join: Annotated[
        str,
        typer.Option("--join", metavar="TEXT", help="What is put between several fields; a blank.", show_default=False),
    ] = " "
    subset: Annotated[
        str | None, typer.Option("--subset", metavar="NAME", help="Which judgements of a folder, qrels/NAME.tsv; test.")
    ] = None
    collection: CollectionName = None
    split: SplitterName = None
    split_options: SplitterSettings = None
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
        """Read documents, queries and judgements.

        Raises:
            ConfigError: something cannot be read or does not fit together.
        """
        documents, notes = self._documents()
        questions = read_questions(
            documents,
            self.queries,
            self.qrels,
            fields=self.fields if documents is self.corpus else None,
            query_fields=self.query_fields,
            id_field=self.id_field if documents is self.corpus else None,
            query_id_field=self.query_id_field,
            relevant_field=self.relevant_field,
            join=self.join.replace(r"\n", "\n").replace(r"\t", "\t"),
            split=self.subset,
            collection=self.collection,
            limit=self.limit,
            query_limit=self.query_limit,
            known=self.known,
            seed=self.seed,
            name=None if documents is self.corpus else Path(self.corpus).absolute().name or self.corpus,
        )
        return replace(questions, notes=(*questions.notes, *notes))

    def _documents(self) -> tuple[Any, Sequence[str]]:
        """Return what ``read_questions`` takes, and what was left out of files that are one text each.

        Markdown, text and web pages are read as by ``embedrouter estimate``, and split as a program splits them.
        """
        place = Path(self.corpus).expanduser()
        pages = place.is_dir() and not holds_questions(place, self.subset)
        pages |= bool(MAGIC.search(self.corpus)) and not place.exists() and "://" not in self.corpus
        if not (pages or self.split):
            return self.corpus, ()
        options = TextOptions(
            [self.corpus],
            fields=self.fields,
            id_field=self.id_field,
            split=self.split,
            split_options=self.split_options,
        )
        with closing(Texts(options)) as texts:
            found = {item.id: item.text for item in texts}
            if not found:
                return self.corpus, ()  # of which the message says what is there
            return found, [f"{line[0].upper()}{line[1:]}." for line in texts.skipped.lines()]
