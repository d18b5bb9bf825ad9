/** Calls into the page's own code, which may throw. */

/**
 * Call `callback`; what it throws is reported as uncaught, as the browser does it for event listeners.
 * Passed on, it would stop the client in the middle of a step, and lose what the step had still to do.
 */
export function callPage<T>(callback: ((value: T) => void) | null, value: T): void {
  try {
    callback?.(value);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}
