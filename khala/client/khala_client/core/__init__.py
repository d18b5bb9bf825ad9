"""The pure centre of the client: takes values and bytes, returns values and bytes.

No socket, clock, randomness or event loop; ``now_s`` and ``rng`` are arguments. khala_client.ring is
around it, the same on trio and on asyncio.
"""
