// A service worker that removes itself. The page needs none: its history is in IndexedDB, its files are kept by
// the browser for ever under hashed names. But a development machine serves many things on one port in turn,
// and a worker that another one has left there would answer in our place; the browser asks for this path again
// whenever it checks that worker for news.
export {};

const worker = self as unknown as {
  registration: { unregister(): Promise<boolean> };
  skipWaiting(): Promise<void>;
  addEventListener(type: string, listener: (event: { waitUntil(work: Promise<unknown>): void }) => void): void;
};

worker.addEventListener("install", (event) => event.waitUntil(worker.skipWaiting()));
worker.addEventListener("activate", (event) => event.waitUntil(leave()));

async function leave(): Promise<void> {
  for (const name of await caches.keys()) await caches.delete(name);
  await worker.registration.unregister();
}
