// The vendor's emulator of WorkOS (npm: workos) with one user.
// node workos_emulator.mjs <node_modules> <port> <email>; prints the id that it gave the user.
import { pathToFileURL } from "node:url";

const [modules, port, email] = process.argv.slice(2);
const { createEmulator } = await import(pathToFileURL(`${modules}/workos/dist/emulate/index.js`).href);
const emulator = await createEmulator({ port: Number(port), seed: { users: [{ email, first_name: "Ann" }] } });
const answer = await fetch(`${emulator.url}/user_management/users?email=${encodeURIComponent(email)}`, {
  headers: { Authorization: `Bearer ${emulator.apiKey}` },
});
const { data } = await answer.json();
console.log(`ready ${data[0].id} ${emulator.apiKey}`);
