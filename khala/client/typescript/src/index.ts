/** The browser client of Khala. */

export { Khala, type GetToken, type KhalaOptions, type SubscribeOptions } from "./khala.ts";
export { Subscription } from "./subscription.ts";
export { KhalaEvent, decodePayload } from "./events.ts";
export type { Notice, Status } from "./notices.ts";
export type { ApplyCounts } from "./core/apply.ts";
export type { Cursor, FromWord } from "./core/cursor.ts";
export {
  ChainMismatch,
  Forbidden,
  KhalaError,
  ReauthRequired,
  StaleCursor,
  StoreConflict,
  StoreFailed,
  Unavailable,
  UpgradeRequired,
  errorFor,
} from "./errors.ts";
export { KhalaHttp, type GetBearer } from "./http.ts";
export { chainStart } from "./chain.ts";
export { verifyEvents, type Broken, type VerifiedRange } from "./verify.ts";
export { isDeviceId, loadDeviceId, makeDeviceId } from "./device.ts";
export { MemoryStore } from "./store/memory.ts";
export { IndexedDbStore } from "./store/indexeddb.ts";
export type { Store } from "./store/store.ts";
export { encodeHex } from "./wire/bytes.ts";
export type { JsonMapping, JsonValue } from "./wire/types.ts";
export { VERSION } from "./version.ts";
