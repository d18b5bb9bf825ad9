// A certified OpenID Connect provider (npm: oidc-provider) with one client of ours; any name is a person.
// node oidc_provider.mjs <node_modules> <port> <redirect URI> <public | secret>
import { pathToFileURL } from "node:url";

const [modules, port, redirectUri, kind] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${modules}/oidc-provider/lib/index.js`).href);

const client = {
  client_id: "khala-test",
  redirect_uris: [redirectUri],
  response_types: ["code"],
  grant_types: ["authorization_code"],
  token_endpoint_auth_method: kind === "public" ? "none" : "client_secret_post",
  ...(kind === "public" ? {} : { client_secret: "a-secret-of-the-tests-alone-0123456789" }),
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client],
  pkce: { required: () => true },
  claims: { openid: ["sub"], email: ["email"], profile: ["preferred_username"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["only for the tests"] },
  features: { devInteractions: { enabled: true } },
  async findAccount(_ctx, sub) {
    const claims = { sub, email: `${sub}@example.org`, preferred_username: sub };
    return { accountId: sub, claims: async () => claims };
  },
});
provider.on("server_error", (_ctx, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
