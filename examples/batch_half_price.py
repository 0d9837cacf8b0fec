"""Embed a corpus that can wait at half the price, through the provider's batch endpoint.

The job is recorded on disk, so this program may end and another one collects the answers: run it again. What is cached,
or in a batch in progress, is not submitted again. Afterwards ``embed`` finds every vector in the cache.

Needs OPENAI_API_KEY and the extra openai; a batch takes minutes to hours.
"""

from embedrouter import Router

corpus = [f"Page {number} of the handbook." for number in range(200)]

with Router(["openai:text-embedding-3-small"], cache="./cache", ledger="./cache/ledger.db") as router:
    now = router.estimate(corpus, input_type="document")
    later = router.estimate(corpus, input_type="document", batch=True)
    print(f"now ${now.cost:.8f}, by batch ${later.cost:.8f}")

    jobs = router.batches() or [router.submit_batch(corpus)]
    for job in jobs:
        status = job.wait(every=60)
        print(f"{status.answered} answered, {len(status.failures)} failed")

    result = router.embed(corpus, input_type="document")
    print(f"{sum(result.cached)} of {len(result)} from the cache")
    print(router.ledger.totals("model"))
