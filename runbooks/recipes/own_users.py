"""Your own users follow your own events: publish to an app topic, serve one page and its tokens."""

import asyncio
import itertools
import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from khala_client import Khala

TOPIC, PORT = os.environ.get("TOPIC", ""), int(os.environ.get("PORT", "8480"))  # app:org_...:orders
PAGE = Path(__file__).with_name("own_users_page.html").read_text(encoding="utf-8")
PAGE = PAGE.replace("{{KHALA_URL}}", os.environ.get("KHALA_URL", "")).replace("{{TOPIC}}", TOPIC)
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/{}; charset=utf-8\r\nCache-Control: no-store\r\n\r\n"


async def answer(khala: Khala, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request: the page, or a token for whoever is signed in at your application."""
    url = urlsplit([*(await reader.read(65_536)).decode().split(" "), "/"][1])
    if url.path == "/token":
        device_id = parse_qs(url.query)["device_id"][0]  # the browser's own, made and kept there
        minted = await khala.mint(user_id="ada", device_id=device_id, topics=[TOPIC])
        text = HEAD.format("plain") + minted.token
    else:
        text = HEAD.format("html") + PAGE
    writer.write(text.encode())
    writer.close()


async def main() -> None:
    """Serve, and publish one event a second."""
    async with Khala.from_env() as khala:
        await asyncio.start_server(lambda *ends: answer(khala, *ends), "127.0.0.1", PORT)
        for number in itertools.count(1):
            await khala.publish(TOPIC, "custom", name="order.placed", data={"number": number})
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
