"""Search with a fast model first, and with a better model only for doubtful queries.

A retriever over two stores: wordllama's store is searched first, MiniLM's store only for the queries whose ten best
hits have the most similar scores, three in ten over a long run. Every document has the tier of its store.

Needs the extras langchain, sentence-transformers and wordllama, and no key; the first run downloads 90 MB.
"""

from embedrouter import Router, TieredRouter, tier
from embedrouter.cascade import Cascade
from embedrouter.langchain import TieredRetriever

handbook = [
    "Travel expenses are paid back within two weeks.",
    "Every employee has thirty days of holiday a year.",
    "Parents can take unpaid leave until the child is three.",
    "The cafeteria serves lunch from noon to two.",
    "Visitors sign in at the reception and wear a badge.",
    "A lost key card must be reported at once.",
    "Salaries are transferred on the last working day of the month.",
    "Bicycles can be locked in the basement.",
    "The meeting rooms are booked in the calendar.",
    "Overtime is compensated with free days.",
    "Company laptops are encrypted and stay in the office overnight.",
    "A doctor's note is needed from the third day of illness.",
]
questions = [
    "How many days of holiday do I have?",
    "Where can I leave my bike?",
    "When are salaries transferred?",
    "I feel unwell, what do you want from me?",
    "Until what age of my child can I stay at home?",
    "Somebody found my access pass, whom do I tell?",
    "Are travel expenses paid back?",
    "Which rooms are booked?",
]

with TieredRouter(
    {
        "low": Router(["wordllama:l2_supercat_256"]),
        "high": Router(["sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"]),
    }
) as both:
    retriever = TieredRetriever.from_router(both, k=1, cascade=Cascade(share=0.3))
    retriever.add_texts(handbook)  # into both stores, under the same ids

    for question in questions:
        best = retriever.invoke(question)[0]
        print(f"{best.metadata['embedding_tier']:>4}: {question} {best.page_content}")
    print(retriever.cascade)

    with tier("high"):  # a requested tier is used without the cascade
        best = retriever.invoke(questions[1])[0]
    print(f"asked for: {best.metadata['embedding_space']}: {best.page_content}")
