/** Which build this is, as servers are told; equal to package.json (tests/web). */
export const VERSION = "0.1.0";
