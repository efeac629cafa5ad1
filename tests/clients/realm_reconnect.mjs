// The Realm client beside a server that is slow, then stops and comes back.
// node realm_reconnect.mjs NODE_MODULES URL; a line says what happened, stdin says go on.
import { createRequire } from "node:module";
import { realmClient } from "./realm_client.mjs";

const [, , modules, url] = process.argv;
const require = createRequire(`${modules}/`);
const RealmWebSocketClient = realmClient(require(`${modules}/ws`));
const say = (what) => console.log(JSON.stringify(what));
const client = new RealmWebSocketClient({ url, model: "memory", reconnectInterval: 50, timeout: 300 });

let connections = 0;
client.on("connected", () => {
  connections += 1;
  if (connections === 1) return;
  client.health().then((health) => {
    say({ event: "reconnected", status: health.status });
    client.disconnect();
  }, () => {}); // it came back before the server had stopped
});
client.on("disconnected", () => say({ event: "disconnected", connected: client.isConnected() }));

await client.connect();
await client.generate({ prompt: "Hello" }).catch((error) => say({ event: error.message }));
