"""The pure centre of the client: takes values and bytes, returns values and bytes.

No socket, clock, randomness or event loop; ``now_s`` and ``rng`` are arguments. The trio front
(khala_client.trio) is one ring around it, an asyncio front is another.
"""
