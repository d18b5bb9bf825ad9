// Two settings of this browser in IndexedDB: the device's id and the colours. Histories and cursors are in the
// client library's store, beside it. Where there is no IndexedDB the page works, and forgets with the tab.

const NAME = "khala-page";
const STORE = "settings";

export class Settings {
  readonly #database: IDBDatabase | null;
  readonly #memory = new Map<string, string>();

  private constructor(database: IDBDatabase | null) {
    this.#database = database;
  }

  static async open(): Promise<Settings> {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      return new Settings(await answer(request));
    } catch {
      return new Settings(null);
    }
  }

  async read(name: string): Promise<string | undefined> {
    if (this.#database === null) return this.#memory.get(name);
    const found: unknown = await answer(this.#database.transaction(STORE).objectStore(STORE).get(name));
    return typeof found === "string" ? found : undefined;
  }

  async write(name: string, value: string): Promise<void> {
    this.#memory.set(name, value);
    if (this.#database === null) return;
    await answer(this.#database.transaction(STORE, "readwrite").objectStore(STORE).put(value, name));
  }

  /** Write a value unless there is one, and return the one that is there: two tabs agree. */
  async settle(name: string, value: string): Promise<string> {
    if (this.#database === null) {
      this.#memory.set(name, this.#memory.get(name) ?? value);
      return this.#memory.get(name) ?? value;
    }
    const store = this.#database.transaction(STORE, "readwrite").objectStore(STORE);
    const found: unknown = await answer(store.get(name));
    if (typeof found === "string") return found;
    await answer(store.put(value, name));
    return value;
  }
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB"));
  });
}
