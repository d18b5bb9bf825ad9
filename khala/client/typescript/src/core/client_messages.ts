/** What this client says, as `khala.v1.json`. Pure. */

import * as m from "../gen/messages.ts";
import { printJson } from "../wire/json_printing.ts";

export const PROTOCOL_RANGE = { min: 1, max: 1 } as const;
export const SCHEMA_RANGE = { min: 1, max: 1 } as const;

/** Who connects: the device keeps its id for life, the build id names this software. */
export interface Identity {
  readonly deviceId: string;
  readonly clientBuildId: string;
}

/** Return a client message as its text. */
export function encodeClientMessage(message: m.ClientMessage): string {
  return printJson(message, m.ClientMessage);
}

/** Return the first message of a connection. The token opens exactly this one. */
export function helloOf(token: string, identity: Identity): string {
  return encodeClientMessage({
    hello: {
      token,
      device_id: identity.deviceId,
      client_build_id: identity.clientBuildId,
      protocol: PROTOCOL_RANGE,
      schema: SCHEMA_RANGE,
    },
  });
}
