"""Compare models on your own question: which model ranks the right document first?

Each query is compared with documents of the same model alone: vectors and scores of two models are not comparable, only
the rankings are. The lead over the next document is a model's certainty, on the model's own scale.

Needs OPENAI_API_KEY, CO_API_KEY and the extra sentence-transformers; leave out of MODELS what you do not have.
"""

import numpy as np

from embedrouter import Router

MODELS = (
    "openai:text-embedding-3-small",
    "cohere:embed-v4.0",
    "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2",
)

query = "How do I reset my password?"
documents = [
    "Whoever has forgotten a password can reset it with the link on the sign-in page.",
    "The help desk answers the telephone on weekdays until six.",
    "Parcels leave the warehouse on the day of the order.",
]
right = 0

for model in MODELS:
    with Router([model]) as router:
        asked = router.embed([query], input_type="query").vectors[0]
        scores = router.embed(documents, input_type="document").vectors @ asked
    best, lead = int(np.argmax(scores)), scores[right] - np.delete(scores, right).max()
    print(f"{model}: best is document {best} ({'right' if best == right else 'wrong'}), lead {lead:+.2f}")
