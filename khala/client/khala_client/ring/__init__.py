"""Tasks and waits around the sans-IO core, once for both event loops.

Written on anyio, which gives our own tasks the same cancellation on trio and on asyncio. What still
differs between the two is behind ``ring.ports``; ``khala_client.trio`` and ``khala_client.asyncio``
fill it in. Invariant: nothing here imports trio, asyncio or a WebSocket library.

A caller's task may be cancelled in a way that no scope of ours shields from (asyncio: once, at any
await). So it only ever waits for events; what has an effect that must be known afterwards (a store's
commit, an append, the socket) is done by tasks of the client.
"""
