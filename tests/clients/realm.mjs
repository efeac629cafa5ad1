// The README's quick start and every method of the Realm client: one JSON line a method.
// node realm.mjs NODE_MODULES URL MODEL [API_KEY]
import { createRequire } from "node:module";
import { realmClient } from "./realm_client.mjs";

const [, , modules, url, model, apiKey] = process.argv;
const require = createRequire(`${modules}/`);
const RealmWebSocketClient = realmClient(require(`${modules}/ws`));
const failed = (error) => ({ code: error.code, message: error.message });

const heard = [];
const client = new RealmWebSocketClient({ url, model, apiKey, reconnect: false });
const onConnected = () => heard.push("connected");
client.on("connected", onConnected);
client.on("disconnected", () => heard.push("disconnected"));

const methods = {
  connect: async () => {
    await client.connect();
    return { connected: client.isConnected() };
  },
  getTenantId: async () => ({ tenant_id: client.getTenantId() }),
  generate: async () => {
    const prompt = "What is the capital of France?";
    return client.generate({ prompt, max_tokens: 8, temperature: 0 });
  },
  generateStream: async () => {
    const tokens = [];
    const prompt = "What is the capital of France?";
    for await (const token of client.generateStream({ prompt, max_tokens: 8, temperature: 0 })) {
      tokens.push(token);
    }
    return { tokens };
  },
  executePipeline: async () =>
    client.executePipeline("two-steps", { query: "Paris", context: "{query} {previous} %s {0}" }),
  "executePipeline (unknown)": async () =>
    client.executePipeline("rag-pipeline", {}).then(() => ({}), failed),
  health: async () => client.health(),
  metadata: async () => client.metadata(),
  "generate (errors)": async () => {
    const other = new RealmWebSocketClient({ url, model: "llama-2-7b", apiKey, reconnect: false });
    await other.connect();
    const unknown = await other.generate({ prompt: "Hello" }).catch(failed);
    const empty = await other.generate({ prompt: "" }).catch(failed);
    const function_ = await other.call("fly", {}).catch(failed);
    other.disconnect();
    return { unknown, empty, function_ };
  },
  "several at a time": async () => {
    const ask = (prompt) => client.generate({ prompt, max_tokens: 4, temperature: 0 });
    const prompts = ["One, two,", "What is the capital of France?", "Name a colour."];
    const together = (await Promise.all(prompts.map(ask))).map((result) => result.text);
    const alone = [];
    for (const prompt of prompts) alone.push((await ask(prompt)).text);
    return { together, alone };
  },
  off: async () => {
    client.off("connected", onConnected);
    return {};
  },
  disconnect: async () => {
    const closed = new Promise((resolve) => { client.on("disconnected", resolve); });
    client.disconnect();
    await closed;
    return { connected: client.isConnected(), heard };
  },
};

for (const [method, run] of Object.entries(methods)) {
  const outcome = await run().catch((error) => ({ failed: String(error?.stack ?? error) }));
  console.log(JSON.stringify({ method, outcome }));
}
